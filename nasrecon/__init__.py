"""nasrecon: posed images in, depth maps, normal maps, a point cloud and a mesh out. Conventions: ``nasrecon.types``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Camera": "nasrecon.types",
    "View": "nasrecon.types",
    "Scene": "nasrecon.types",
    "Estimate": "nasrecon.types",
    "PointCloud": "nasrecon.types",
    "Mesh": "nasrecon.types",
    "open_scene": "nasrecon.ingest.open_scene",
    "load_network": "nasrecon.nas.weights",
    "estimate_views": "nasrecon.inference.estimate",
    "fuse_estimates": "nasrecon.fuse.fusion",
    "save_mesh": "nasrecon.fuse.save",
    "save_cloud": "nasrecon.fuse.save",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import nasrecon`` costs nothing."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nasrecon' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
