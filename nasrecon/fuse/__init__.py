"""Estimates become a point cloud and a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasrecon.fuse.options import FilterStats, FuseOptions

if TYPE_CHECKING:
    from nasrecon.fuse.fusion import Fusion, fuse, fuse_mesh, fuse_points

__all__ = ["FilterStats", "FuseOptions", "Fusion", "fuse", "fuse_mesh", "fuse_points"]


def __getattr__(name: str) -> Any:
    """Import the fusion, and numpy with it, on first use: the command line needs the options' defaults alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nasrecon.fuse import fusion

    return getattr(fusion, name)
