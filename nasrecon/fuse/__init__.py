"""Estimates become a point cloud and a mesh."""

from nasrecon.fuse.fusion import Fusion, fuse, fuse_mesh, fuse_points
from nasrecon.fuse.options import FilterStats, FuseOptions

__all__ = ["FilterStats", "FuseOptions", "Fusion", "fuse", "fuse_mesh", "fuse_points"]
