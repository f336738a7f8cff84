"""From estimates to a point cloud and a mesh."""
