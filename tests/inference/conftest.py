"""Scenes whose photographs show a known plane."""

from __future__ import annotations

import pytest
from plane_world import write_scene

from nasrecon.ingest.open_scene import open_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    images, poses, K, _ = write_scene(tmp_path_factory.mktemp("scene"))
    return open_scene(images, poses, intrinsics=K, convention="cam-from-world")


@pytest.fixture
def fresh_scene(tmp_path):
    """A scene whose files a test may harm."""
    images, poses, K, _ = write_scene(tmp_path / "scene")
    return open_scene(images, poses, intrinsics=K, convention="cam-from-world")
