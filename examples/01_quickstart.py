"""The Python API on the example set: images and cameras to depth, normals, a cloud and a mesh.

python examples/01_quickstart.py [OUT] [NETWORK]
"""

from __future__ import annotations

import sys
from pathlib import Path

import nasrecon as nr

room = Path(__file__).parent / "room"
out = Path(sys.argv[1] if len(sys.argv) > 1 else "nasrecon_out")
network = nr.load_network(sys.argv[2] if len(sys.argv) > 2 else "lite")

scene = nr.prepare_scene(room / "images", room / "sparse" / "0", nr.PrepareOptions(every=4))
print(scene.scene.origin.in_words())

estimates = list(nr.estimate_views(scene, network, nr.EstimateOptions(max_side=256)))
for e in estimates:
    near, far = e.depth[e.depth > 0].min(), e.depth.max()
    print(f"{e.view.name}: depth {near:.2f} to {far:.2f}, confidence {e.confidence.mean():.2f}")

fusion = nr.fuse_estimates(estimates)
assert fusion.cloud is not None and fusion.mesh is not None
print(f"{len(fusion.cloud):,} points, {len(fusion.mesh.faces):,} faces")
print(nr.save_cloud(fusion.cloud, out / "cloud.ply"), nr.save_mesh(fusion.mesh, out / "mesh.ply"))
