"""Estimates in, cloud and mesh out: laws, lazy input, and what is said when nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorder import Recorder

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse import maps as maps_module
from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.maps import PlaneMap
from nasrecon.fuse.o3d import nearest_distance
from nasrecon.fuse.options import FuseOptions
from nasrecon.geometry import angle_between_deg, normals_from_depth, transform
from nasrecon.types import Camera, Estimate, ImageSource, View

from .worlds import BALL, ROOM, colors, distance, normals, render, ring, scaled

WORLD = (BALL, *ROOM)


@pytest.fixture(scope="module")
def estimates() -> list[Estimate]:
    return [render(WORLD, view) for view in ring(14)]


@pytest.fixture(scope="module")
def fusion(estimates: list[Estimate]) -> Fusion:
    return fuse_estimates(estimates, unit="m")


def test_the_cloud_lies_on_the_surface_and_faces_outwards(fusion: Fusion) -> None:
    cloud = fusion.cloud
    off = distance(WORLD, cloud.xyz)
    assert cloud.unit == "m"
    assert len(cloud) > 8_000
    # Exact but for the means over a cell, which cut corners: a small part of a cell.
    assert np.median(off) < 1e-3 * fusion.cell
    assert np.quantile(off, 0.99) < 0.15 * fusion.cell
    assert off.max() < 0.6 * fusion.cell
    clear = np.sort([np.abs(s.distance(cloud.xyz)) for s in WORLD], axis=0)[1] > 2 * fusion.cell
    angle = angle_between_deg(cloud.normal[clear], normals(WORLD, cloud.xyz[clear]))
    assert np.quantile(angle, 0.99) < 3
    assert np.abs(cloud.rgb - colors(cloud.xyz)).max() < 3
    # Some pixels are seen by one view alone: sure ones stay.
    assert 0 < fusion.stats.lone < 0.5 * fusion.stats.supported
    assert 0 < np.median(cloud.sigma) < 0.05


def test_the_stages_only_lose_pixels_and_all_is_reported(fusion: Fusion, estimates: list[Estimate]) -> None:
    stages = fusion.stats.stages()
    assert [name for name, _ in stages] == ["pixels", "with depth", "confident", "3 views agree", "merged points"]
    counts = [count for _, count in stages]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 14 * 160 * 120
    assert counts[-1] == len(fusion.cloud)
    assert fusion.stats.views == 14
    assert fusion.stats.isolated_views == []
    assert fusion.stats.comparisons >= fusion.stats.near >= fusion.stats.consistent > 0
    assert set(fusion.seconds) == {"read", "average", "filter", "points", "mesh", "colors"}


@pytest.mark.parametrize(("s", "shift"), [(1e-3, (0, 0, 0)), (1e3, (0, 0, 0)), (1.0, (3e6, -5e6, 200.0))])
def test_scene_times_s_gives_cloud_and_mesh_times_s(
    fusion: Fusion, estimates: list[Estimate], s: float, shift: tuple[float, float, float]
) -> None:
    """A room in millimetres, a building in kilometres, a site in map coordinates: nothing but the numbers changes."""
    other = fuse_estimates([scaled(e, s, shift) for e in estimates])
    assert other.cell == pytest.approx(s * fusion.cell, rel=1e-5)
    assert other.voxel.size == pytest.approx(s * fusion.voxel.size, rel=1e-5)
    for ours, theirs in ((fusion.cloud.xyz, other.cloud.xyz), (fusion.mesh.vertices, other.mesh.vertices)):
        back = (theirs - shift) / s
        # Cells and voxels sit on the scene's median, which moves by rounding: a few points on a border change sides.
        assert len(back) == pytest.approx(len(ours), rel=5e-3)
        assert np.quantile(nearest_distance(back, ours), 0.98) < 1e-3 * fusion.cell
        assert np.quantile(nearest_distance(ours, back), 0.98) < 1e-3 * fusion.cell


def test_rotating_the_world_rotates_the_cloud(fusion: Fusion, estimates: list[Estimate]) -> None:
    a = 0.7
    turn = np.array([[np.cos(a), -np.sin(a), 0, 2], [np.sin(a), np.cos(a), 0, -1], [0, 0, 1, 3], [0, 0, 0, 1]])
    views = [replace(e.view, cam_from_world=e.view.cam_from_world @ np.linalg.inv(turn)) for e in estimates]
    turned = fuse_estimates([replace(e, view=v) for e, v in zip(estimates, views, strict=True)], mesh=False).cloud
    # The cells lie otherwise, so the points differ within a cell, but on the same surface with the same normals.
    back = transform(np.linalg.inv(turn), turned.xyz)
    assert np.median(distance(WORLD, back)) < 1e-3 * fusion.cell
    assert nearest_distance(fusion.cloud.xyz, back).max() < 2 * fusion.cell
    assert np.median(angle_between_deg(turned.normal @ turn[:3, :3], normals(WORLD, back))) < 0.5


def test_the_order_of_the_views_does_not_matter(fusion: Fusion, estimates: list[Estimate]) -> None:
    shuffled = fuse_estimates(
        [estimates[i] for i in np.random.default_rng(0).permutation(len(estimates))], mesh=False
    ).cloud
    assert len(shuffled) == pytest.approx(len(fusion.cloud), rel=5e-3)
    assert np.quantile(nearest_distance(shuffled.xyz, fusion.cloud.xyz), 0.98) < 1e-3 * fusion.cell


class OnDisk:
    """List-like, not a list: makes each estimate anew when asked, and notes how often."""

    def __init__(self, estimates: Sequence[Estimate]) -> None:
        self._estimates = estimates
        self.reads = np.zeros(len(estimates), int)

    def __len__(self) -> int:
        return len(self._estimates)

    def __getitem__(self, i: int) -> Estimate:
        self.reads[i] += 1
        return replace(self._estimates[i], depth=self._estimates[i].depth.copy())


def test_lazy_input_is_read_once_whatever_fits_into_memory(
    fusion: Fusion, estimates: list[Estimate], monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = OnDisk(estimates)
    np.testing.assert_array_equal(fuse_estimates(lazy, mesh=False).cloud.xyz, fusion.cloud.xyz)
    assert (lazy.reads == 1).all()
    # Room for three views' planes: the others wait in a temporary file.
    size = PlaneMap.of(estimates[0], FuseOptions()).nbytes
    monkeypatch.setattr(maps_module.Store.__init__, "__defaults__", (4 * size,))
    bounded = OnDisk(estimates)
    np.testing.assert_array_equal(fuse_estimates(bounded, mesh=False).cloud.xyz, fusion.cloud.xyz)
    assert (bounded.reads == 1).all()


def test_one_result_alone_is_that_of_both(fusion: Fusion, estimates: list[Estimate]) -> None:
    np.testing.assert_array_equal(fuse_estimates(iter(estimates), mesh=False).cloud.xyz, fusion.cloud.xyz)
    np.testing.assert_array_equal(
        fuse_estimates(estimates, cloud=False).mesh.vertices.shape, fusion.mesh.vertices.shape
    )
    only_mesh = fuse_estimates(estimates, cloud=False)
    assert only_mesh.cloud is None
    assert only_mesh.stats.merged is None


def test_progress_counts_all_passes(estimates: list[Estimate]) -> None:
    recorder = Recorder()
    fuse_estimates(estimates[:4], mesh=False, progress=recorder)
    views = [(step, i, 4) for step in ("survey", "average", "fuse") for i in (1, 2, 3, 4)]
    assert recorder.updates == [*views, ("surface", 0, 1), ("surface", 1, 1)]


def test_a_single_view_is_taken_as_it_is_and_two_must_agree(estimates: list[Estimate]) -> None:
    single = fuse_estimates(estimates[:1], mesh=False)
    assert single.stats.supported == 160 * 120
    assert single.stats.stages()[3][0] == "no check between views"
    pair = fuse_estimates(estimates[:2], mesh=False)
    assert pair.stats.min_views == 2
    assert 0 < pair.stats.supported < 2 * 160 * 120


def test_views_apart_from_the_rest_are_named(estimates: list[Estimate]) -> None:
    camera = estimates[0].view.camera
    far = replace(
        ring(1, camera)[0],
        name="far.png",
        cam_from_world=np.array([[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    apart = replace(estimates[0], view=far)
    result = fuse_estimates([*estimates[:4], apart], mesh=False)
    assert result.stats.isolated_views == ["far.png"]
    assert nearest_distance(result.cloud.xyz, np.zeros((1, 3))).max() < 10


def test_a_view_that_contradicts_the_rest_is_named_and_its_pixels_go(estimates: list[Estimate]) -> None:
    moved = estimates[6].view.cam_from_world.copy()
    moved[:3, 3] += (0.5, 0.3, -0.4)
    spoiled = [*estimates[:6], replace(estimates[6], view=replace(estimates[6].view, cam_from_world=moved))]
    result = fuse_estimates([*spoiled, *estimates[7:]], mesh=False)
    assert result.stats.contradicting() == [estimates[6].view.name]
    shares = result.stats.confirmed
    assert min(shares, key=shares.__getitem__) == estimates[6].view.name
    assert sum(share * estimates[0].depth.size for share in shares.values()) == pytest.approx(result.stats.supported)
    assert any(estimates[6].view.name in note and "pose" in note for note in result.stats.notes())
    assert np.quantile(distance(WORLD, result.cloud.xyz), 0.95) < 0.02


def test_a_view_in_another_scale_is_named_with_its_factor(estimates: list[Estimate]) -> None:
    scaled_view = replace(estimates[3], depth=estimates[3].depth * np.float32(1.1))
    stats = fuse_estimates([*estimates[:3], scaled_view, *estimates[4:]], mesh=False).stats
    assert [note for note in stats.notes() if "multiplied" in note][0].startswith(f"{estimates[3].view.name}: ")  # noqa: RUF015
    assert stats.scales[estimates[3].view.name] == pytest.approx(1 / 1.1, abs=0.02)


def test_nothing_is_noted_where_all_is_well(fusion: Fusion) -> None:
    assert fusion.stats.notes() == []


def test_no_estimates_is_an_input_error(estimates: list[Estimate]) -> None:
    once = iter(estimates[:1])
    fuse_estimates(once, mesh=False)
    with pytest.raises(InputError, match="pass a list"):
        fuse_estimates(once)


def test_a_view_given_twice_is_refused(estimates: list[Estimate]) -> None:
    with pytest.raises(InputError, match=r"000.png"):
        fuse_estimates([estimates[0], estimates[1], estimates[0]])


def normals_of(rng: np.random.Generator, estimate: Estimate) -> np.ndarray:
    """Return an estimate's normals, each turned by some degrees."""
    normal = estimate.normal + rng.normal(0, 0.1, estimate.normal.shape)
    return (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)


def test_each_stage_that_drops_everything_says_so(estimates: list[Estimate]) -> None:
    few = estimates[:4]
    with pytest.raises(EmptyResultError, match="none of the 76800 pixels of 4 views has a depth"):
        fuse_estimates([replace(e, depth=np.zeros_like(e.depth)) for e in few])
    with pytest.raises(EmptyResultError, match=r"confidence filter dropped everything: 76800 .*Lower min_confidence"):
        fuse_estimates([replace(e, confidence=np.full_like(e.confidence, 0.1)) for e in few])
    rng = np.random.default_rng(0)
    noisy = [replace(e, depth=(e.depth * rng.normal(1, 0.05, e.depth.shape)).astype(np.float32)) for e in few]
    with pytest.raises(
        EmptyResultError, match=r"between views dropped everything: 76800 .*raise max_relative_depth_error \(1e-06\)"
    ):
        fuse_estimates(noisy, FuseOptions(max_relative_depth_error=1e-6))
    shaken = [replace(e, normal=normals_of(rng, e)) for e in few]
    with pytest.raises(EmptyResultError, match=r"raise max_normal_angle_deg \(0.01\)"):
        fuse_estimates(shaken, FuseOptions(max_normal_angle_deg=0.01))
    with pytest.raises(EmptyResultError, match=r"lower min_views \(9\)"):
        fuse_estimates(few, FuseOptions(min_views=9))
    apart = []
    for i, e in enumerate(few):
        moved = e.view.cam_from_world.copy()
        moved[:3, 3] += 1000 * i
        apart.append(replace(e, view=replace(e.view, cam_from_world=moved)))
    with pytest.raises(EmptyResultError, match="No view sees what another sees"):
        fuse_estimates(apart)


LIVINGROOM = Path(__file__).parents[2] / "../shared/data/livingroom1"


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="needs ../shared/data/livingroom1")
def test_a_real_room_from_its_exact_depth() -> None:
    """Every 20th frame at half size; judged by every 20th frame between them, which the fusion does not see."""
    from PIL import Image

    poses = np.array(
        [line.split() for line in (LIVINGROOM / "trajectory.log").read_text().splitlines() if len(line.split()) == 4],
        float,
    )
    images = sorted((LIVINGROOM / "image").glob("*.jpg"))
    maps = sorted((LIVINGROOM / "depth").glob("*.png"))
    camera = Camera(width=640, height=480, K=np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])).resized(320, 240)

    def estimate(i: int) -> Estimate:
        world_from_cam = poses[4 * i : 4 * i + 4]
        view = View(
            name=images[i].name,
            image=ImageSource(path=images[i]),
            camera=camera,
            cam_from_world=np.linalg.inv(world_from_cam),
        )
        # Every second pixel lies a quarter of a small pixel off its centre: harmless here.
        depth = np.asarray(Image.open(maps[i]), np.float32)[::2, ::2] / 1000
        rgb = np.asarray(Image.open(images[i]).convert("RGB").resize((320, 240)))
        sure = (depth > 0).astype(np.float32)
        return Estimate(
            view=view,
            depth=depth,
            normal=normals_from_depth(depth, camera),
            confidence=sure,
            sigma=0.01 * depth,
            rgb=rgb,
        )

    fusion = fuse_estimates([estimate(i) for i in range(0, 200, 20)], unit="m")
    truth = np.concatenate(
        [
            transform(e.view.world_from_cam, camera.unproject_depth(e.depth)[e.depth > 0])
            for e in map(estimate, range(10, 200, 20))
        ]
    )
    assert fusion.stats.supported > 0.5 * fusion.stats.with_depth
    rng = np.random.default_rng(0)
    for points in (fusion.cloud.xyz, fusion.mesh.vertices):
        off = nearest_distance(points[rng.permutation(len(points))[:20_000]], truth)
        # A pixel is 5 mm wide at 3 m, the truth is as coarse.
        assert np.median(off) < 0.01
    missed = nearest_distance(truth[rng.permutation(len(truth))[:20_000]], fusion.cloud.xyz)
    assert (missed < 0.03).mean() > 0.85
