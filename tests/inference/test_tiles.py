"""Views that memory does not hold in one pass: tiles give what one pass gives, without steps, within the limit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from plane_world import SweepNetwork, make_view, plane_depth, plane_in_cam, posed, write_scene
from recorder import Recorder

from nasrecon.cli.options import parse_bytes
from nasrecon.errors import InputError, NasReconError
from nasrecon.geometry import angle_between_deg
from nasrecon.inference import estimate, memory, tiles
from nasrecon.inference.adapter import Photo, _rotate_90
from nasrecon.inference.estimate import estimate_views
from nasrecon.inference.memory import Memory, refuse_too_large
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.passes import predict
from nasrecon.inference.run import estimate_to_folder
from nasrecon.inference.tiles import plan_tiles, predict_in_tiles
from nasrecon.ingest.open_scene import open_scene
from nasrecon.nas.network import Prediction
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene

WIDTH, HEIGHT = 384, 288
PIXELS = 192 * 192


def item(width=WIDTH, height=HEIGHT):
    """A reference and two sources that show the plane."""
    ref, *sources = (
        posed(make_view(str(i), width, height, width, (1, 3 * i, 0), (-0.15 * i, 0, 0))) for i in (0, 1, -1)
    )
    return ref, sources


def tiled(network, ref, sources, pixels=PIXELS):
    camera = ref.view.camera
    grid = plan_tiles(camera.width, camera.height, pixels, network.size_multiple)
    assert len(grid.x.starts) > 1 and len(grid.y.starts) > 1
    with torch.inference_mode():
        return predict_in_tiles(network, ref, sources, "cpu", "auto", grid), grid


@pytest.mark.parametrize(
    ("width", "height", "pixels"),
    [(6000, 4000, 640_000), (WIDTH, HEIGHT, PIXELS), (5000, 200, 90_000), (193, 1000, 50_000)],
)
def test_tiles_cover_the_image_within_the_pixels_and_their_weights_sum_to_one(width, height, pixels):
    grid = plan_tiles(width, height, pixels, 32)
    assert grid.tile_pixels <= pixels
    for axis, length in ((grid.x, width), (grid.y, height)):
        assert axis.size == length or axis.size % 32 == 0
        total = np.zeros(length)
        for start, weight in zip(axis.starts, axis.weights, strict=True):
            assert 0 <= start <= length - axis.size and (weight > 0).all()
            total[start : start + axis.size] += weight
        np.testing.assert_allclose(total, 1)
        assert (np.diff(axis.starts) <= 0.85 * axis.size).all()


def test_tiles_give_what_one_pass_gives():
    """Within 1 % of depth where both sources show the plane: the sweep is wrong beyond, in tiles and in one pass."""
    ref, sources = item()
    network = SweepNetwork()
    network.planes = 32
    with torch.inference_mode():
        whole = predict(network, [ref], [sources])[0]
    found, _ = tiled(network, ref, sources)
    inner = np.s_[16:-16, 60:-60]
    off = np.abs(found.depth / whole.depth - 1)[inner]
    assert (off < 0.01).mean() > 0.99
    assert np.median(np.abs(found.depth / plane_depth(ref.view) - 1)[inner]) < 0.01
    assert found.sources == whole.sources and found.view.camera.width == WIDTH
    assert np.median(angle_between_deg(found.normal[inner], whole.normal[inner])) < 2
    assert (found.sigma[inner] / whole.sigma[inner] > 0.3).mean() > 0.9
    np.testing.assert_array_equal(found.rgb, ref.rgb)


class Drifting(SweepNetwork):
    """Knows the plane, but every pass is off by another factor: 1, 1.03, 1, 1.03 ..."""

    size_multiple = 32

    def __init__(self, sigma=0.01):
        super().__init__()
        self.factors, self.relative = [], sigma

    def forward(self, batch):
        self.factors.append(1 + 0.03 * (len(self.factors) % 2))
        K, near = batch.ref_K[0].double(), float(batch.min_depth[0])
        height, width = batch.ref_image.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(K).T
        normal, offset = plane_in_cam(make_view("", 8, 8, 8, (1, 0, 0), (0, 0, 0)))
        depth = (near * offset / (rays @ torch.from_numpy(normal))).float()[None] * self.factors[-1]
        facing = torch.from_numpy(normal).float()[None, :, None, None].expand(1, 3, height, width)
        fields = dict.fromkeys(("depth_initial", "depth", "refined_depth"), depth)
        fields |= dict.fromkeys(("normal", "refined_normal"), facing)
        return Prediction(**fields, confidence=torch.full_like(depth, 0.5), sigma=self.relative * depth)


class Unsure(Drifting):
    """Right and sure on the whole image, off by a half and unsure in every tile."""

    def forward(self, batch):
        self.relative = 0.3 if self.factors else 0.01
        out = super().forward(batch)
        factor = (1.0 if len(self.factors) == 1 else 1.5) / self.factors[-1]
        return replace(out, refined_depth=out.refined_depth * factor, sigma=out.sigma * factor)


def test_unsure_tiles_of_a_large_image_take_the_depth_of_the_small_estimate(monkeypatch):
    """However small that is: here an image of a twelfth of the side."""
    monkeypatch.setattr(tiles, "COARSE_SIDE", 48)
    ref, sources = item()
    found, _ = tiled(Unsure(), ref, sources)
    assert np.abs(found.depth / plane_depth(ref.view) - 1).max() < 0.02


def test_a_view_larger_than_in_training_has_a_small_estimate_where_memory_holds_it(scene, monkeypatch):
    """One pass over the small image, one over the whole, view by view; where unsure it takes the small one's depth."""
    options = EstimateOptions(batch=2, max_memory=10**11)
    monkeypatch.setattr(tiles, "COARSE_SIDE", 192)
    alone, together = Limited(10**9, MemoryError()), Limited(10**9, MemoryError())
    list(estimate_views(scene, together, options))
    (right,) = estimate_views(scene, Drifting(), options, views=[0])
    assert together.sizes == [WIDTH * HEIGHT]
    monkeypatch.setattr(estimate, "LARGEST_SIDE", 320)
    recorder = Recorder()
    found = list(estimate_views(scene, alone, options, progress=recorder))
    assert alone.sizes == [192 * 144, WIDTH * HEIGHT] * 2 and not recorder.notes
    assert [e.depth.shape for e in found] == [(HEIGHT, WIDTH)] * 2
    (unsure,) = estimate_views(scene, Unsure(), options, views=[0], progress=recorder)
    assert np.abs(unsure.depth / right.depth - 1).max() < 0.02


def test_a_very_large_image_is_estimated_at_sizes_between(monkeypatch):
    """By steps of at most about 3.2: from 48 px to 384 px over 132 px; the last is as right as the sizes before."""
    monkeypatch.setattr(tiles, "COARSE_SIDE", 48)
    network = Limited(10**9, MemoryError())
    ref, sources = item()
    _, grid = tiled(network, ref, sources)
    assert network.sizes[:2] == [48 * 36, 132 * 100] and len(network.sizes) == 2 + len(grid.x.starts) * len(
        grid.y.starts
    )
    sizes = tiles._sizes_below(replace(ref.view.camera, width=6000, height=4000), 700_000, 16)
    assert sizes[0][0] == 48 and all(b[0] / a[0] < 3.4 for a, b in zip(sizes, [*sizes[1:], (6000, 4000)], strict=True))


def test_tiles_that_disagree_leave_no_step():
    """Two tiles 3 % apart meet over their overlap, and the cropped cameras give one plane."""
    ref, sources = item()
    network = Drifting()
    found, grid = tiled(network, ref, sources)
    assert len(network.factors) == 1 + len(grid.x.starts) * len(grid.y.starts)
    ratio = found.depth / plane_depth(ref.view)
    assert ratio.min() > 0.999 and ratio.max() < 1.031 and np.ptp(ratio) > 0.01
    steps = max(np.abs(np.diff(ratio, axis=axis)).max() for axis in (0, 1))
    overlap = min(axis.size - np.diff(axis.starts).max() for axis in (grid.x, grid.y))
    assert steps < 2 * 0.03 / overlap
    normal, _ = plane_in_cam(ref.view)
    assert angle_between_deg(found.normal, np.broadcast_to(normal, found.normal.shape)).max() < 0.1


def test_a_rolled_source_of_another_size_serves_tiles_too():
    ref, (first, _) = item()
    first = posed(make_view("1", 600, 450, 600, (1, 3, 0), (-0.15, 0, 0)))
    found, _ = tiled(SweepNetwork(), ref, [_rotate_90(first)])
    seen = np.abs(found.depth / plane_depth(ref.view) - 1)[16:-16, 100:-100]
    assert np.median(seen) < 0.01


def test_a_tile_that_no_source_shows_takes_the_small_estimate():
    """The source looks aside: the tiles at one end have no source of their own."""
    ref, _ = item()
    source = posed(make_view("s", WIDTH, HEIGHT, WIDTH, (1, 35, 0), (-0.3, 0, 0)))
    network = Drifting()
    found, grid = tiled(network, ref, [source])
    assert len(network.factors) < 1 + len(grid.x.starts) * len(grid.y.starts)
    assert np.abs(found.depth / plane_depth(ref.view) - 1).max() < 0.031


class Limited(SweepNetwork):
    """Runs out of memory with more than ``most`` pixels in a pass."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, batch):
        self.sizes.append(batch.ref_image.shape[-2] * batch.ref_image.shape[-1])
        if self.sizes[-1] > self.most:
            raise self.error
        return super().forward(batch)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    images, poses, K, _ = write_scene(tmp_path_factory.mktemp("scene"), count=2, width=WIDTH, height=HEIGHT)
    opened = open_scene(images, poses, intrinsics=K, convention="cam-from-world")
    return prepare_scene(opened, options=PrepareOptions(check=False, refine=False, min_depth=1.5))


def test_a_view_that_runs_out_of_memory_is_tried_again_in_tiles_of_half_the_pixels(scene, monkeypatch):
    monkeypatch.setattr(estimate, "PARALLEL_VIEWS", 1)
    error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    network, recorder = Limited(80_000, error), Recorder()
    first, second = estimate_views(scene, network, progress=recorder)
    assert network.sizes[0] == WIDTH * HEIGHT and max(network.sizes[1:]) <= WIDTH * HEIGHT // 2
    for found in (first, second):
        middle = np.s_[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4]
        assert np.median(np.abs(found.depth / plane_depth(found.view) - 1)[middle]) < 0.01
    assert any(f"does not hold a pass of {WIDTH * HEIGHT} pixels" in note for note in recorder.notes)
    assert sum("tiles of" in note for note in recorder.notes) == 1
    with pytest.raises(NasReconError, match=f"{WIDTH}x{HEIGHT}.*--max-side"):
        list(estimate_views(scene, Limited(1000, error), progress=recorder))


def test_max_memory_decides_on_tiles_and_is_recorded(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "RUNTIME_BYTES", 0)
    options = EstimateOptions(max_memory=140_000_000)
    network = Limited(10**9, MemoryError())
    run = estimate_to_folder(scene, network, tmp_path / "out", options, progress=Recorder())
    assert run.estimated == 2 and max(network.sizes) * (2500 + 60) < 140_000_000 and len(network.sizes) > 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["options"]["max_memory"] == 140_000_000
    for other in (EstimateOptions(), EstimateOptions(max_memory=10**9)):
        with pytest.raises(InputError, match="max_memory"):
            estimate_to_folder(scene, network, tmp_path / "out", other, progress=Recorder())


def test_memory_that_does_not_hold_the_smallest_tiles_is_refused_before_any_work(scene, tmp_path):
    with pytest.raises(InputError, match=r"384x288 need 0\.\d+ GB.*--max-memory is 0\.2 GB"):
        estimate_to_folder(scene, SweepNetwork(), tmp_path, EstimateOptions(max_memory=200_000_000))


def test_a_large_image_leaves_less_for_the_pass_and_small_images_change_nothing(scene, monkeypatch):
    four_gb = Memory.of(SweepNetwork(), EstimateOptions(max_memory=4_000_000_000))
    small, large = four_gb.pass_pixels(640, 480, 4), four_gb.pass_pixels(6000, 4000, 4)
    assert 192**2 < large < small and small > 640 * 480
    assert four_gb.waiting_writes(24_000_000, 4) == 0 < four_gb.waiting_writes(640 * 480, 4)
    assert four_gb.cached_images(24_000_000, 64) < 8 < four_gb.cached_images(300_000, 64)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    refuse_too_large(scene.scene, SweepNetwork(), EstimateOptions(), 4)
    assert Memory.of(SweepNetwork(), EstimateOptions()).pass_pixels(6000, 4000, 4) is None
    monkeypatch.setattr(memory, "free_memory", lambda: 10**8)
    with pytest.raises(InputError, match="of the free memory"):
        refuse_too_large(scene.scene, SweepNetwork(), EstimateOptions(max_side=0), 4)


class Returning(Drifting):
    """Gives back the prior of the batch."""

    def forward(self, batch):
        out = super().forward(batch)
        return replace(out, refined_depth=batch.prior_depth, refined_normal=batch.prior_normal)


def test_a_given_depth_is_cut_with_its_tile():
    ref, sources = item()
    truth = plane_depth(ref.view).astype(np.float32)
    normal = np.broadcast_to(plane_in_cam(ref.view)[0].astype(np.float32), (*truth.shape, 3))
    with_prior = Photo(rgb=ref.rgb, view=ref.view, prior=(truth, normal))
    found, _ = tiled(Returning(), with_prior, sources)
    assert np.abs(found.depth / truth - 1)[8:-8, 8:-8].max() < 0.005


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4_000_000_000), ("512 MB", 512_000_000), ("1.5g", 1_500_000_000), ("2GiB", 2**31), ("1000", 1000)],
)
def test_sizes_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-4GB", "4XB", "GB"])
def test_texts_that_are_no_size_of_memory(text):
    import typer

    with pytest.raises(typer.BadParameter, match="4GB"):
        parse_bytes(text)
