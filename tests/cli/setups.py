"""Arguments of the command line for a scene with a known plane."""

from __future__ import annotations


def scene_arguments(files):
    images, poses, K, _ = files
    return [images, "--poses", poses, "--intrinsics", K, "--convention", "cam-from-world"]
