"""nasrecon: images to depth maps, normal maps, a point cloud and a mesh. Conventions: ``nasrecon.types``.

The names below are the public API; everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasrecon.check.diagnose import check_scene
    from nasrecon.check.findings import Diagnosis, Finding
    from nasrecon.check.fixes import apply_fixes
    from nasrecon.errors import InputError, NasReconError
    from nasrecon.evaluation.demon import evaluate_demon
    from nasrecon.evaluation.frames import evaluate_frames
    from nasrecon.evaluation.scoring import Evaluation
    from nasrecon.export.export_estimates import export_estimates
    from nasrecon.fuse.fusion import Fusion, fuse_estimates
    from nasrecon.fuse.options import FuseOptions
    from nasrecon.fuse.save import load_cloud, load_mesh, save_cloud, save_mesh
    from nasrecon.inference.depth_maps import DepthMaps
    from nasrecon.inference.estimate import estimate_views
    from nasrecon.inference.options import EstimateOptions
    from nasrecon.inference.refine import refine_to_folder
    from nasrecon.inference.run import RunSummary, estimate_to_folder
    from nasrecon.ingest.open_scene import open_scene
    from nasrecon.nas.network import Network, Prediction, StereoBatch
    from nasrecon.nas.weights import load_network
    from nasrecon.pipeline import reconstruct
    from nasrecon.prepare.options import PrepareOptions
    from nasrecon.prepare.prepare import PreparedScene, prepare_scene
    from nasrecon.progress import Progress
    from nasrecon.refine.poses import RefinedPoses, refine_scene
    from nasrecon.results.reader import Results, open_results
    from nasrecon.types import Camera, Estimate, Hints, ImageSource, Lens, Mesh, PointCloud, Scene, SceneOrigin, View
    from nasrecon.view.report import write_report
    from nasrecon.view.sheet import write_sheet

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "DepthMaps",
    "Diagnosis",
    "Estimate",
    "EstimateOptions",
    "Evaluation",
    "Finding",
    "FuseOptions",
    "Fusion",
    "Hints",
    "ImageSource",
    "InputError",
    "Lens",
    "Mesh",
    "NasReconError",
    "Network",
    "PointCloud",
    "Prediction",
    "PrepareOptions",
    "PreparedScene",
    "Progress",
    "RefinedPoses",
    "Results",
    "RunSummary",
    "Scene",
    "SceneOrigin",
    "StereoBatch",
    "View",
    "__version__",
    "apply_fixes",
    "check_scene",
    "estimate_to_folder",
    "estimate_views",
    "evaluate_demon",
    "evaluate_frames",
    "export_estimates",
    "fuse_estimates",
    "load_cloud",
    "load_mesh",
    "load_network",
    "open_results",
    "open_scene",
    "prepare_scene",
    "reconstruct",
    "refine_scene",
    "refine_to_folder",
    "save_cloud",
    "save_mesh",
    "write_report",
    "write_sheet",
]

_HOMES = {
    "check.diagnose": ("check_scene",),
    "check.findings": ("Diagnosis", "Finding"),
    "check.fixes": ("apply_fixes",),
    "errors": ("InputError", "NasReconError"),
    "evaluation.demon": ("evaluate_demon",),
    "evaluation.frames": ("evaluate_frames",),
    "evaluation.scoring": ("Evaluation",),
    "export.export_estimates": ("export_estimates",),
    "fuse.fusion": ("Fusion", "fuse_estimates"),
    "fuse.options": ("FuseOptions",),
    "fuse.save": ("load_cloud", "load_mesh", "save_cloud", "save_mesh"),
    "inference.estimate": ("estimate_views",),
    "inference.options": ("EstimateOptions",),
    "inference.run": ("RunSummary", "estimate_to_folder"),
    "inference.refine": ("refine_to_folder",),
    "inference.depth_maps": ("DepthMaps",),
    "ingest.open_scene": ("open_scene",),
    "nas.network": ("Network", "Prediction", "StereoBatch"),
    "nas.weights": ("load_network",),
    "pipeline": ("reconstruct",),
    "prepare.options": ("PrepareOptions",),
    "prepare.prepare": ("PreparedScene", "prepare_scene"),
    "progress": ("Progress",),
    "refine.poses": ("RefinedPoses", "refine_scene"),
    "results.reader": ("Results", "open_results"),
    "types": (
        "Camera",
        "Estimate",
        "Hints",
        "ImageSource",
        "Lens",
        "Mesh",
        "PointCloud",
        "Scene",
        "SceneOrigin",
        "View",
    ),
    "view.report": ("write_report",),
    "view.sheet": ("write_sheet",),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import nasrecon`` costs nothing."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"nasrecon.{module}"), name)
    raise AttributeError(f"module 'nasrecon' has no attribute {name!r}")
