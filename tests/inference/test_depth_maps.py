"""Depth maps of other programs: what the exports write is read back, bad files are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plane_world import make_view, photograph, plane_depth

from nasrecon.errors import InputError
from nasrecon.export.export_estimates import export_estimates
from nasrecon.inference.depth_maps import DepthMaps
from nasrecon.types import Estimate


def estimate(name="a b.png"):
    view = make_view(name, 64, 48, 66, (1, 2, 0), (0, 0, 0))
    K = view.camera.K.copy()
    K[0, 1] = 0
    view = replace(view, camera=replace(view.camera, K=K))
    depth = plane_depth(view).astype(np.float32)
    depth[:5] = 0
    normal = np.zeros((48, 64, 3), np.float32)
    normal[..., 2] = -1
    flat = np.full((48, 64), 0.5, np.float32)
    return Estimate(
        view=view, depth=depth, normal=normal, confidence=flat, sigma=0.1 * flat, rgb=photograph(view), sources=()
    )


@pytest.mark.parametrize(("format", "error"), [("colmap", 0), ("png16", 6e-4), ("pfm", 0)])
def test_what_the_exports_write_is_read_back(tmp_path, format, error):
    one = estimate()
    export_estimates([one], format, tmp_path / "out", unit="m")
    depth, normal = DepthMaps(tmp_path / "out").read(one.view)
    assert np.abs(depth - one.depth).max() <= error and ((depth > 0) == (one.depth > 0)).all()
    assert normal is None or np.abs(normal - one.normal)[one.depth > 0].max() < 1e-6
    assert (normal is None) == (format != "colmap")


@pytest.mark.parametrize("name", ["a b.png.npz", "a b.npz", "depth/a b.npz"])
def test_npz_by_name(tmp_path, name):
    one = estimate()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    np.savez(tmp_path / name, depth=np.where(one.depth > 0, one.depth, np.nan), normal=one.normal)
    depth, normal = DepthMaps(tmp_path).read(one.view)
    assert (depth == one.depth).all() and (normal == one.normal).all()
    before = DepthMaps(tmp_path).digest((one.view,))
    np.savez(tmp_path / name, depth=2 * one.depth)
    assert DepthMaps(tmp_path).digest((one.view,)) != before


def test_a_view_without_a_map_has_none(tmp_path):
    assert DepthMaps(tmp_path).read(estimate().view) is None
    with pytest.raises(InputError, match="no such folder"):
        DepthMaps(tmp_path / "nowhere")
    with pytest.raises(InputError, match="positive"):
        DepthMaps(tmp_path, -1.0)


FILES = ("a.npz", "a.npy", "a.pfm", "a.png", "stereo/depth_maps/a.png.geometric.bin")
HEADS = st.sampled_from([b"", b"PK\3\4", b"\x93NUMPY\1\0", b"Pf\n2 2\n-1\n", b"Pf\n", b"\x89PNG\r\n\x1a\n", b"2&2&1&"])


@pytest.mark.parametrize("name", FILES)
@given(head=HEADS, content=st.binary(max_size=60))
def test_any_bytes_give_an_error_or_a_map(tmp_path_factory, name, head, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(head + content)
    try:
        depth, _ = DepthMaps(folder).read(make_view("a.png", 64, 48, 66, (1, 2, 0), (0, 0, 0)))
        assert depth.ndim == 2 and np.isfinite(depth).all() and (depth >= 0).all()
    except InputError as error:
        assert "a." in str(error)
