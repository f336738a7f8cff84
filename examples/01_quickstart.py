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

fusion = nr.fuse_estimates(estimates)
print(f"{len(fusion.cloud):,} points, {len(fusion.mesh.faces):,} faces")
print(nr.save_cloud(fusion.cloud, out / "cloud.ply"), nr.save_mesh(fusion.mesh, out / "mesh.ply"))
