"""Depth of another program, refined with the images: here the true depth of the example set with 2 % of noise.

``nasrecon refine`` does the same with files: npz, COLMAP's dense maps, PFM or 16-bit PNG.

python examples/03_refine_depth.py [OUT] [NETWORK]
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

import nasrecon as nr

if __name__ == "__main__":
    room = Path(__file__).parent / "room"
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "nasrecon_out")
    network = nr.load_network(sys.argv[2] if len(sys.argv) > 2 else "lite")
    scene = nr.prepare_scene(room / "images", room / "sparse" / "0", nr.PrepareOptions(sources=2))
    given = out / "given"
    given.mkdir(parents=True, exist_ok=True)
    noise, truth = np.random.default_rng(0), {}
    for view in scene.scene.views:
        truth[view.name] = iio.imread(room / "depth" / f"{Path(view.name).stem}.png") / 1000
        noisy = truth[view.name] * (1 + 0.02 * noise.standard_normal(truth[view.name].shape))
        np.savez_compressed(given / f"{view.name}.npz", depth=noisy.astype(np.float32))
    options = nr.EstimateOptions(size=(320, 240))
    run = nr.refine_to_folder(scene, nr.DepthMaps(given), network, out, options)
    for e in run.results:
        errors = []
        for depth in (np.load(given / f"{e.view.name}.npz")["depth"][::2, ::2], e.depth):
            true = truth[e.view.name][::2, ::2]
            known = (true > 0) & (depth > 0)
            errors.append(np.median(np.abs(depth - true)[known] / true[known]))
        print(f"{e.view.name}: depth off by {errors[0]:.2%} as given, {errors[1]:.2%} refined (median)")
