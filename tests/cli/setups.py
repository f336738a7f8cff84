"""What the tests of the command line have in common: arguments for a scene with a known plane, joined lines."""

from __future__ import annotations

import re


def scene_arguments(files):
    images, poses, K, _ = files
    return [images, "--poses", poses, "--intrinsics", K, "--convention", "cam-from-world"]


def unbroken(text):
    """Join commands that are broken into lines, as a shell does."""
    return re.sub(r" \\\n +", " ", text)
