"""The script that rendered the example set still renders it: the depth of a view, at a tenth of the size."""

from __future__ import annotations

import runpy
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_script_renders_the_depth_of_the_example() -> None:
    script = runpy.run_path(str(EXAMPLES / "render_room.py"), run_name="room")
    world, bank = script["make_world"](torch.Generator().manual_seed(11))
    K, world_from_cam = script["cameras"]()
    K[:2] /= 10
    with torch.no_grad():
        depth = script["render"](world, bank, K[None], world_from_cam[3:4], (48, 64))[1][0].numpy()
    stored = iio.imread(EXAMPLES / "room" / "depth" / "room_03.png")[5::10, 5::10] / 1000
    assert depth.shape == stored.shape == (48, 64)
    assert np.median(np.abs(depth / stored - 1)) < 0.003 and np.mean(np.abs(depth / stored - 1) < 0.02) > 0.9
