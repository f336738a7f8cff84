#!/usr/bin/env bash
# Everything from nothing: environment, installation, then depth, normals, cloud and mesh of the example set.
#   bash examples/quickstart.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
source examples/setup.sh
out=${1:-nasrecon_out}
.venv/bin/nasrecon infer examples/room/images --poses examples/room/sparse/0 --out "$out"
.venv/bin/nasrecon fuse "$out" --out "$out/room.ply" --cloud "$out/room_cloud.ply"
cat <<EOT

Made in $out:
  depth/, normal/   PNG previews of each view
  views/            depth, normals, confidence of each view (.npz)
  room_cloud.ply    the point cloud
  room.ply          the mesh: open it in MeshLab, Blender, CloudCompare ...
Your own images:
  .venv/bin/nasrecon infer IMAGES --poses COLMAP_MODEL --out RESULTS && .venv/bin/nasrecon fuse RESULTS --out mesh.ply
EOT
