"""Estimates become a point cloud and a mesh."""
