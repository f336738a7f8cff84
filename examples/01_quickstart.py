"""The Python API on the example set: images and cameras to depth, normals, a cloud and a mesh.

python examples/01_quickstart.py [OUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import nasrecon as nr

room = Path(__file__).parent / "room"
out = Path(sys.argv[1] if len(sys.argv) > 1 else "nasrecon_out")
out.mkdir(parents=True, exist_ok=True)

scene = nr.open_scene(room / "images", poses=room / "sparse" / "0")
print(scene.source)
network = nr.load_network("lite", device="auto")

estimates = list(nr.estimate_views(scene, network))
for e in estimates:
    print(
        f"{e.view.name}: depth {e.depth[e.depth > 0].min():.2f} to {e.depth.max():.2f}, confidence {e.confidence.mean():.2f}"
    )

cloud = nr.fuse_points(estimates)
mesh = nr.fuse_mesh(estimates)
print(f"{len(cloud):,} points, {len(mesh.faces):,} faces")
print(cloud.save(out / "cloud.ply"), mesh.save(out / "mesh.ply"))
