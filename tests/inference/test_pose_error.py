"""Sigma grows, and confidence falls, by what the error of the poses is in shares of the parallax."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plane_world import make_view, posed

from nasrecon.inference.loader import ImageCache, read_photo
from nasrecon.inference.passes import predict
from nasrecon.inference.pose_error import PAIR_FACTOR, SCALE_OF_MEDIAN, add_pose_error
from nasrecon.nas.network import NEAR, Prediction, StereoBatch
from nasrecon.prepare.prepare import PreparedScene
from nasrecon.types import Scene

ERROR = 0.002  # focal lengths


def batch_of(*translations: tuple[float, float, float], side: int = 64, exact: bool = True) -> StereoBatch:
    poses = torch.eye(4).repeat(1, len(translations), 1, 1)
    poses[0, :, :3, 3] = torch.tensor(translations)
    K = torch.tensor([[1.2 * side, 0, side / 2 - 0.5], [0, 1.2 * side, side / 2 - 0.5], [0, 0, 1.0]])
    return StereoBatch(
        ref_image=torch.zeros(1, 3, side, side), src_images=torch.zeros(1, len(translations), 3, side, side),
        ref_K=K[None], src_K=K.repeat(1, len(translations), 1, 1), src_from_ref=poses, min_depth=torch.ones(1),
        poses_exact=exact,
    )  # fmt: skip


def prediction_of(depth: torch.Tensor, relative: float = 0.01) -> Prediction:
    normal = torch.tensor([0, 0, -1.0]).view(1, 3, 1, 1).expand(1, 3, *depth.shape[1:])
    confidence = torch.full_like(depth, float(-np.expm1(-NEAR / relative)))
    return Prediction(
        depth_initial=depth, depth=depth, normal=normal, refined_depth=depth, refined_normal=normal,
        confidence=confidence, sigma=2**0.5 * relative * depth,
    )  # fmt: skip


def added(out: Prediction, before: Prediction) -> torch.Tensor:
    """The part of the Laplace scale, relative to the depth, that came with the error of the poses."""
    return ((out.sigma**2 - before.sigma**2) / 2).clamp_min(0).sqrt() / out.refined_depth


@pytest.mark.parametrize("depth", [2.0, 8.0])
def test_the_error_is_a_share_of_the_parallax(depth: float) -> None:
    before = prediction_of(torch.full((1, 64, 64), depth))
    out = add_pose_error(before, batch_of((0.3, 0, 0), (0, -0.1, 0)), torch.tensor([ERROR]))
    expected = SCALE_OF_MEDIAN * ERROR / (0.2 / depth)  # the mean baseline is 0.2
    torch.testing.assert_close(added(out, before), torch.full((1, 64, 64), expected), rtol=2e-3, atol=0)
    scale = out.sigma / out.refined_depth / 2**0.5
    torch.testing.assert_close(out.confidence, -torch.expm1(-NEAR / scale))
    assert out.refined_depth is before.refined_depth


def test_near_and_far_surfaces_keep_their_own_errors() -> None:
    depth = torch.full((1, 64, 64), 2.0)
    depth[:, :, 32:] = 6.0
    before = prediction_of(depth)
    error = added(add_pose_error(before, batch_of((0.3, 0, 0)), torch.tensor([ERROR])), before)
    expected = SCALE_OF_MEDIAN * ERROR * depth / 0.3
    torch.testing.assert_close(error, expected, rtol=2e-3, atol=0)


def test_the_error_is_largest_at_the_epipole_of_forward_motion() -> None:
    before = prediction_of(torch.full((1, 65, 65), 3.0))
    batch = batch_of((0, 0, -0.5), side=65)
    error = added(add_pose_error(before, batch, torch.tensor([ERROR])), before)
    assert error[0, 32, 32] > 5 * error[0, 0, 0] > 0
    assert error.isfinite().all()


def test_a_source_behind_the_surface_adds_no_parallax() -> None:
    before = prediction_of(torch.full((1, 64, 64), 2.0))
    both = add_pose_error(before, batch_of((0.3, 0, 0), (0, 0, -5.0)), torch.tensor([ERROR]))
    expected = SCALE_OF_MEDIAN * ERROR / (0.15 / 2)  # the mean of 0.3 and nothing
    torch.testing.assert_close(added(both, before), torch.full((1, 64, 64), expected), rtol=2e-3, atol=0)


def test_size_and_unit_do_not_matter() -> None:
    small = prediction_of(torch.full((1, 64, 64), 2.0))
    large = prediction_of(torch.full((1, 128, 128), 2.0))
    error = torch.tensor([ERROR])
    first = added(add_pose_error(small, batch_of((0.3, 0, 0)), error), small)
    second = added(add_pose_error(large, batch_of((0.3, 0, 0), side=128), error), large)
    far = prediction_of(torch.full((1, 64, 64), 2000.0))
    third = added(add_pose_error(far, batch_of((300.0, 0, 0)), error), far)
    for other in (second, third):
        torch.testing.assert_close(other.mean(), first.mean(), rtol=1e-3, atol=0)


def test_of_a_refined_pair_more_is_uncertain() -> None:
    before, error = prediction_of(torch.full((1, 64, 64), 2.0)), torch.tensor([ERROR])
    exact = added(add_pose_error(before, batch_of((0.3, 0, 0)), error), before)
    refined = added(add_pose_error(before, batch_of((0.3, 0, 0), exact=False), error), before)
    torch.testing.assert_close(refined, PAIR_FACTOR * exact, rtol=1e-3, atol=0)
    three = added(add_pose_error(before, batch_of((0.3, 0, 0), (0.3, 0, 0), exact=False), error), before)
    torch.testing.assert_close(three, exact, rtol=1e-3, atol=0)


def test_each_item_of_a_batch_has_its_own_error() -> None:
    depths, moves = (2.0, 5.0), ((0.3, 0, 0), (0.1, 0.2, 0.1))
    one = [(prediction_of(torch.full((1, 64, 64), z)), batch_of(move)) for z, move in zip(depths, moves, strict=True)]
    names = ("ref_image", "src_images", "ref_K", "src_K", "src_from_ref", "min_depth")
    batch = replace(one[0][1], **{name: torch.cat([getattr(b, name) for _, b in one]) for name in names})
    maps = Prediction.__dataclass_fields__
    both = Prediction(**{name: torch.cat([getattr(p, name) for p, _ in one]) for name in maps})
    out = add_pose_error(both, batch, torch.tensor([ERROR, 0.0]))
    alone = add_pose_error(*one[0], torch.tensor([ERROR]))
    torch.testing.assert_close(out.sigma[:1], alone.sigma)
    torch.testing.assert_close(out.sigma[1:], one[1][0].sigma)
    torch.testing.assert_close(out.confidence[:1], alone.confidence)


def test_pixels_without_depth_and_scenes_without_an_error_stay_as_they_are() -> None:
    depth = torch.full((1, 64, 64), 2.0)
    depth[:, 10:20] = torch.nan
    before = prediction_of(depth)
    assert add_pose_error(before, batch_of((0.3, 0, 0)), torch.zeros(1)) is before
    out = add_pose_error(before, batch_of((0.3, 0, 0)), torch.tensor([ERROR]))
    assert out.sigma[:, 10:20].isnan().all() and out.sigma[:, 20:].isfinite().all()
    expected = torch.full((1, 34, 64), SCALE_OF_MEDIAN * ERROR * 2 / 0.3)
    torch.testing.assert_close(added(out, before)[:, 30:], expected, rtol=2e-3, atol=0)


def test_bfloat16_around_it_changes_nothing() -> None:
    before = prediction_of(torch.linspace(2, 9, 64 * 64).view(1, 64, 64))
    batch = batch_of((0.3, 0.1, 0.05))
    expected = add_pose_error(before, batch, torch.tensor([ERROR])).sigma
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(add_pose_error(before, batch, torch.tensor([ERROR])).sigma, expected)


def test_the_error_of_a_photo_reaches_its_estimate() -> None:
    class FlatNetwork:
        name, planes, size_multiple, min_side = "flat", 64, 32, 64

        def __call__(self, batch: StereoBatch) -> Prediction:
            return prediction_of(torch.full(batch.ref_image[:, 0].shape, 2.0))

    ref, source = (posed(make_view(name, 96, 64, 90, (0, 0, 0), (x, 0, 0))) for name, x in (("a", 0), ("b", 0.4)))
    (plain,) = predict(FlatNetwork(), [ref], [[source]])
    (wider,) = predict(FlatNetwork(), [replace(ref, pose_error=ERROR)], [[source]])
    assert np.array_equal(plain.depth, wider.depth)
    assert (wider.sigma > plain.sigma).all() and (wider.confidence < plain.confidence).all()


def test_photos_carry_the_error_and_the_views_of_their_scene(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    view = make_view("a", 96, 64, 90, (0, 0, 0), (0, 0, 0))
    scene = Scene(root=tmp_path, views=(replace(view, image=replace(view.image, path=tmp_path / "a.png")),))
    prepared = PreparedScene(scene=scene, epipolar_px={"a": 0.9})
    for size in ((96, 64), (48, 32)):
        photo = read_photo(prepared, 0, *size)
        assert photo.pose_error == pytest.approx(0.01) and photo.rgb.shape == (*size[::-1], 3)
        assert photo.scene_views == 1
        assert ImageCache(prepared, 1).read(0, *size).pose_error == photo.pose_error


def test_the_error_of_a_scene_is_the_median_of_its_views_in_focal_lengths() -> None:
    class SceneOfOne:
        views = (make_view("a", 96, 64, 90, (0, 0, 0), (0, 0, 0)),)

    prepared = PreparedScene(scene=SceneOfOne(), epipolar_px={"a": 0.5, "b": 0.4, "c": 3.0})  # type: ignore[arg-type]
    assert prepared.pose_error(0) == pytest.approx(0.5 / SceneOfOne.views[0].camera.K[0, 0])
    assert PreparedScene(scene=SceneOfOne()).pose_error(0) == 0  # type: ignore[arg-type]
