"""The border to the networks: a slanted plane must cross it exactly, both ways, in any unit and at any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from plane_world import PLANE_NORMAL_IN_WORLD, make_view, plane_depth, plane_in_cam, posed

from nasrecon.errors import InputError
from nasrecon.geometry import inverse, rotation_angle_deg
from nasrecon.inference.adapter import FARTHEST_IN_PLANES, Photo, to_estimates, to_stereo_batch
from nasrecon.inference.passes import predict, predict_stages
from nasrecon.nas.network import Prediction
from nasrecon.nas.precision import device_of
from nasrecon.nas.volume import pixel_rays, plane_sample_grid, sample_on_planes
from nasrecon.types import Camera


class PlaneNetwork:
    """Answer with the exact depth and normal of one plane, thinking only in the conventions of ``StereoBatch``.

    It is told the plane in the reference camera, in scene units, and the nearest plane's depth; from
    ``batch.min_depth`` it learns the unit it has to answer in.
    """

    name = "plane"
    planes = 64

    def __init__(self, planes_in_ref, min_depth, size_multiple=32, min_side=64, trained_min_depth=None):
        self.planes_in_ref, self.scene_min_depth = planes_in_ref, min_depth
        self.size_multiple, self.min_side, self.trained_min_depth = size_multiple, min_side, trained_min_depth
        self.batches = []

    def __call__(self, batch):
        self.batches.append(batch)
        B, _, H, W = batch.ref_image.shape
        assert H % self.size_multiple == W % self.size_multiple == 0 and min(H, W) >= self.min_side
        normal = torch.tensor(np.array([n for n, _ in self.planes_in_ref[:B]]))
        offset = torch.tensor([d for _, d in self.planes_in_ref[:B]], dtype=torch.float64)
        rays = pixel_rays(batch.ref_K.double(), H, W)
        unit = batch.min_depth.double() / self.scene_min_depth
        depth = ((unit * offset)[:, None] / torch.einsum("bc,bcn->bn", normal, rays)).view(B, H, W)
        # Normals away from the camera and twice too long: the border has to turn and to shorten them.
        normals = (-2 * normal)[:, :, None, None].expand(B, 3, H, W)
        half = torch.full_like(depth, 0.5)
        return Prediction(
            depth_initial=depth,
            depth=depth,
            normal=normals,
            refined_depth=depth,
            refined_normal=normals,
            confidence=half,
            sigma=0.01 * depth,
        )


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e-3])
@pytest.mark.parametrize("trained_min_depth", [None, 0.5])
@pytest.mark.parametrize(
    ("width", "height", "multiple", "least"), [(96, 64, 32, 64), (97, 71, 4, 32), (53, 37, 32, 128)]
)
def test_slanted_plane_comes_out_exact(unit, trained_min_depth, width, height, multiple, least):
    ref = make_view("ref", width, height, 80, (4, -7, 2), (0.1, 0, 0), unit, near=0.9)
    src = make_view("src", width, height, 85, (0, 5, -3), (0.5, 0.1, 0), unit)
    network = PlaneNetwork([plane_in_cam(ref, unit)], 0.9 * unit, multiple, least, trained_min_depth)
    (estimate,) = predict(network, [posed(ref, unit)], [[posed(src, unit)]])

    assert float(network.batches[0].min_depth[0]) == (trained_min_depth or 1.0)
    # float32 of K and of the depth: a few parts in 1e7 each.
    np.testing.assert_allclose(estimate.depth, plane_depth(ref, unit), rtol=3e-6)
    np.testing.assert_allclose(estimate.sigma, 0.01 * plane_depth(ref, unit), rtol=3e-6)
    normal = ref.cam_from_world[:3, :3] @ PLANE_NORMAL_IN_WORLD
    np.testing.assert_allclose(estimate.normal, np.broadcast_to(normal, estimate.normal.shape), atol=1e-6)
    assert estimate.sources == ("src",) and estimate.rgb.shape == (height, width, 3)


def photometric_errors(batch, network, filled_widths, shift_px=0.0):
    """Per source, the 95 % quantile [8-bit levels] of |reference - source warped over the plane|, padding left out."""
    H, W = batch.ref_image.shape[-2:]
    depth = network(batch).depth.float()
    errors = []
    for s, filled_width in enumerate(filled_widths):
        src_K = batch.src_K[:, s].clone()
        src_K[:, 0, 2] += shift_px
        inv_depth = (1 / depth).view(1, 1, -1)
        grid, inside = plane_sample_grid(batch.ref_K, src_K, batch.src_from_ref[:, s], inv_depth, (H, W))
        warped = sample_on_planes(batch.src_images[:, s], grid)[:, :, 0]
        error = (warped - batch.ref_image).abs() * 127.5
        seen = inside[0, 0] & ((grid[0, 0, ..., 0] + 1) / 2 * (W - 1) <= filled_width - 1)
        assert seen.float().mean() > 0.3
        errors.append(torch.quantile(error[:, :, seen], 0.95).item())
    return np.array(errors)


def test_images_cameras_and_transforms_agree_on_a_textured_plane():
    """The reference equals the sources warped over the plane, for sources of the same size and of two others."""
    ref = make_view("ref", 96, 64, 90, (2, -4, 1), (0.0, 0, 0))
    sources = [
        make_view("same size", 96, 64, 95, (0, 5, -3), (0.3, 0.05, 0)),
        make_view("larger", 192, 120, 180, (-2, 3, 2), (0.2, -0.1, 0.1)),
        make_view("portrait", 64, 96, 90, (1, -3, 4), (-0.2, 0.0, 0.1)),
    ]
    network = PlaneNetwork([plane_in_cam(ref)], 1.0)
    batch = to_stereo_batch([posed(ref)], [[posed(view) for view in sources]], network)
    assert batch.src_images.shape == (1, 3, 3, 64, 96)
    padded = batch.src_images[0, 2, :, :, 43:]  # the portrait is fitted to 43 x 64
    assert torch.equal(padded, padded[..., :1].expand_as(padded))
    filled_widths = (96, 96, 43)
    aligned = photometric_errors(batch, network, filled_widths)
    # Bilinear sampling blunts waves of 16 px by 2 levels, resizing the sources (the portrait's waves become 10 px
    # long) by 9; half a pixel moves them by more than 20.
    assert (aligned < 12).all(), aligned
    for shift in (0.5, -0.5):
        assert (photometric_errors(batch, network, filled_widths, shift) > 20).all()


@pytest.mark.parametrize("roll", [0, 90, 180, 270, 70])
def test_rolled_sources_come_upright_and_still_agree(roll):
    """A portrait shot beside a landscape one: turned by quarters, image, camera and transform together."""
    square = {"camera": Camera(width=96, height=96, K=[[110, 0, 45], [0, 116, 51], [0, 0, 1]])}
    ref = replace(make_view("ref", 96, 96, 90, (2, -4, 1), (0.0, 0, 0)), **square)
    src = replace(make_view("src", 96, 96, 90, (0, 5, roll - 3), (0.3, 0.05, 0)), **square)
    network = PlaneNetwork([plane_in_cam(ref)], 1.0)
    batch = to_stereo_batch([posed(ref)], [[posed(src)]], network)
    left_over = batch.src_from_ref[0, 0].numpy()
    assert abs(np.degrees(np.arctan2(left_over[1, 0], left_over[0, 0]))) < 45
    # As above, with waves of 19 px: sampling blunts them by 2 levels, half a pixel moves them by 18.
    assert (photometric_errors(batch, network, (96,)) < 6).all()
    assert (photometric_errors(batch, network, (96,), 0.5) > 15).all()


def test_values_of_the_image_span_minus_one_to_one():
    view = make_view("a", 64, 64, 60, (0, 0, 0), (0, 0, 0))
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[..., 1], rgb[..., 2] = 128, 255
    batch = to_stereo_batch([Photo(rgb=rgb, view=view)], [[Photo(rgb=rgb, view=view)]], PlaneNetwork([], 1.0))
    torch.testing.assert_close(batch.ref_image[0, :, 5, 7], torch.tensor([-1.0, 1 / 255, 1.0]))
    assert torch.equal(batch.ref_image[0], batch.src_images[0, 0])


def test_far_world_coordinates_keep_the_relative_transform():
    """Cameras a thousand kilometres from the origin: the relative transform is formed in float64."""
    ref = make_view("ref", 64, 64, 60, (1, 2, 3), (1e6, -2e6, 5e5))
    src = make_view("src", 64, 64, 60, (1, 2, 3), (1e6 + 0.125, -2e6, 5e5))
    batch = to_stereo_batch([posed(ref)], [[posed(src)]], PlaneNetwork([], 1.0))
    R = ref.cam_from_world[:3, :3]
    np.testing.assert_allclose(batch.src_from_ref[0, 0, :3, 3], R @ [-0.125, 0, 0], atol=1e-8)


def test_mixed_sizes_and_numbers_of_sources_keep_their_order():
    views = [make_view(f"v{i}", 96 if i % 2 else 64, 64, 80, (0, i, 0), (0.1 * i, 0, 0)) for i in range(5)]
    pictures = [posed(view) for view in views]
    sources = [pictures[1:2], pictures[2:4], pictures[3:4], pictures[2:3], pictures[:1]]

    class Counting(PlaneNetwork):
        def __call__(self, batch):
            self.planes_in_ref = [(np.array([0, 0, 1.0]), 1.0)] * len(batch.ref_image)
            return super().__call__(batch)

    network = Counting([], 1.0)
    estimates = predict(network, pictures, sources)
    assert [estimate.view.name for estimate in estimates] == ["v0", "v1", "v2", "v3", "v4"]
    assert [estimate.sources for estimate in estimates] == [
        tuple(photo.view.name for photo in item) for item in sources
    ]
    sizes = sorted(tuple(batch.src_images.shape[:2]) for batch in network.batches)
    assert sizes == [(1, 1), (1, 2), (3, 1)]


def test_poses_in_doubt_are_tried_both_ways():
    """The network sees the pair under either poses; the answer is the average, and stays with the refined poses."""
    ref = make_view("ref", 96, 64, 80, (0, 0, 0), (0, 0, 0))
    given = make_view("src", 96, 64, 80, (0, 1, 0), (0.4, 0, 0))
    src = make_view("src", 96, 64, 80, (0, 2, 0), (0.5, 0, 0))
    doubted = replace(posed(src), given_pose=given.cam_from_world)

    class ByBaseline(PlaneNetwork):
        """Depth is ten times the baseline, known the better the longer that is."""

        def __call__(self, batch):
            self.planes_in_ref = [(np.array([0, 0, 1.0]), 10 * float(batch.src_from_ref[0, 0, :3, 3].norm()))]
            return super().__call__(batch)

    network = ByBaseline([], 1.0)
    (estimate,) = predict(network, [posed(ref)], [[doubted]])
    expected = [to_stereo_batch([posed(ref)], [[posed(view)]], network).src_from_ref for view in (src, given)]
    for batch, src_from_ref in zip(network.batches, expected, strict=True):
        torch.testing.assert_close(batch.src_from_ref, src_from_ref)
    np.testing.assert_allclose(estimate.depth, 2 / (1 / 5 + 1 / 4), rtol=1e-6)
    single = ByBaseline([], 1.0)
    assert (predict_stages(single, posed(ref), [posed(src)]).refined_depth == 5).all() and len(single.batches) == 1
    both = predict_stages(network, posed(ref), [doubted])
    np.testing.assert_allclose(both.refined_depth, 2 / (1 / 5 + 1 / 4), rtol=1e-6)
    # A view without doubt in the same call goes through once; so does one with two sources whose poses are not exact,
    # where its scene has more than three views.
    several = [doubted, posed(src)]
    refs = [posed(ref)] * 3 + [replace(posed(ref), scene_views=views) for views in (3, 4)]
    network.batches.clear()
    predict(network, refs, [[doubted], [posed(src)], several, several, several])
    passes = [(batch.poses_exact, batch.src_images.shape[:2]) for batch in network.batches]
    # Items of three views pass together.
    assert passes == [(False, (1, 1)), (True, (1, 1)), (True, (1, 1)), (False, (2, 2)), (True, (2, 2)), (False, (1, 2))]
    assert not network.batches[-1].to("cpu").poses_exact


def test_a_pair_also_passes_at_the_smaller_sizes_that_the_network_names():
    """Those below its own that the network takes; under both poses where they are not exact. The average has the
    reference's size, and is exact on a plane."""
    ref = make_view("ref", 128, 96, 80, (0, 0, 0), (0, 0, 0))
    src = make_view("src", 128, 96, 80, (0, 2, 0), (0.5, 0, 0))
    doubted = replace(posed(src), given_pose=src.cam_from_world)

    class Sized(PlaneNetwork):
        pair_sides = (32, 64, 128, 256)

    network = Sized([plane_in_cam(ref)] * 4, 1.0, size_multiple=16, min_side=32)

    def sizes_of_passes(*sources, passes="auto"):
        network.batches.clear()
        (estimate,) = predict(network, [posed(ref)], [sources], passes=passes)
        inner = (slice(2, -2), slice(2, -2))
        np.testing.assert_allclose(estimate.depth[inner], plane_depth(ref)[inner], rtol=1e-3)
        assert estimate.normal.shape == (96, 128, 3)
        return [tuple(batch.ref_image.shape[-2:]) for batch in network.batches]

    small, own = (48, 64), (96, 128)
    assert sizes_of_passes(posed(src)) == [small, own]
    assert sizes_of_passes(doubted) == [small, own] * 2
    assert sizes_of_passes(posed(src), posed(src)) == [own]
    assert sizes_of_passes(doubted, passes="single") == [own]


def test_sizes_are_averaged_by_pixel_and_poses_by_image():
    """Each size is surer in one half of the image. Under the given pose the depth is another, and its spread larger but
    for the upper eighth."""
    ref = make_view("ref", 128, 96, 80, (0, 0, 0), (0, 0, 0))
    src = make_view("src", 128, 96, 80, (0, 0, 0), (0.5, 0, 0))
    given = make_view("src", 128, 96, 80, (0, 0, 0), (0.25, 0, 0))

    class HalfSure(PlaneNetwork):
        pair_sides = (64,)

        def __call__(self, batch):
            small, poor = batch.ref_image.shape[-1] == 64, float(batch.src_from_ref[0, 0, :3, 3].norm()) < 0.4
            self.planes_in_ref = [(np.array([0, 0, 1.0]), (2.0 if small else 4.0) * (2 if poor else 1))]
            prediction = super().__call__(batch)
            left = torch.arange(batch.ref_image.shape[-1]) < batch.ref_image.shape[-1] // 2
            relative = torch.where(left == small, 0.01, 0.1).repeat(batch.ref_image.shape[-2], 1) * (100 if poor else 1)
            relative[: len(relative) // 8] /= 10000 if poor else 1
            return replace(prediction, sigma=prediction.refined_depth * relative)

    network = HalfSure([], 1.0, size_multiple=16, min_side=32)
    (estimate,) = predict(network, [posed(ref)], [[replace(posed(src), given_pose=given.cam_from_world)]])
    assert len(network.batches) == 4
    np.testing.assert_allclose(estimate.depth[:, :56], 2.0, rtol=1e-2)
    np.testing.assert_allclose(estimate.depth[:, -56:], 4.0, rtol=1e-2)


def test_a_batch_of_two_scales_equals_its_items():
    """Two nearest planes in one batch: each item is scaled by its own."""
    refs = [make_view(f"r{i}", 64, 64, 70, (i, -i, 0), (0.1, 0, 0), near=near) for i, near in enumerate((0.5, 2.0))]
    src = make_view("src", 64, 64, 70, (0, 3, 0), (0.4, 0, 0))

    class Both(PlaneNetwork):
        def __call__(self, batch):
            self.scene_min_depth = torch.tensor([0.5, 2.0], dtype=torch.float64)
            return super().__call__(batch)

    network = Both([plane_in_cam(view) for view in refs], None, trained_min_depth=0.25)
    for estimate in predict(network, [posed(v) for v in refs], [[posed(src)]] * 2):
        np.testing.assert_allclose(estimate.depth, plane_depth(estimate.view), rtol=3e-6)
    baselines = torch.linalg.vector_norm(network.batches[0].src_from_ref[:, 0, :3, 3], dim=1)
    torch.testing.assert_close(baselines, torch.tensor([0.3 * 0.25 / 0.5, 0.3 * 0.25 / 2.0]))


def test_pixels_without_value_are_zero_in_every_map():
    view = make_view("a", 64, 64, 60, (0, 0, 0), (0, 0, 0))
    network = PlaneNetwork([(np.array([0, 0, 1.0]), 2.0)], 1.0)
    batch = to_stereo_batch([posed(view)], [[posed(view)]], network)
    good = network(batch)
    reach = FARTHEST_IN_PLANES * network.planes
    bad_depths = [np.nan, np.inf, -np.inf, 0.0, -1.0, reach * 1.01, 1e30]
    depth = good.refined_depth.clone()
    depth[0, 0, : len(bad_depths)] = torch.tensor(bad_depths, dtype=depth.dtype)
    depth[0, 1, 0] = reach * 0.99
    normal = good.refined_normal.clone()
    normal[0, :, 2, 0], normal[0, 1, 2, 1] = 0, np.nan
    confidence, sigma = good.confidence.clone(), good.sigma.clone()
    confidence[0, 2, :3] = torch.tensor([np.nan, 1.5, -0.5])
    sigma[0, 2, :2] = torch.tensor([np.nan, np.inf])
    prediction = replace(good, refined_depth=depth, refined_normal=normal, confidence=confidence, sigma=sigma)
    (estimate,) = to_estimates(prediction, [posed(view)], [[posed(view)]], network)

    invalid = np.zeros((64, 64), bool)
    invalid[0, : len(bad_depths)] = True
    for name in ("depth", "confidence", "sigma", "normal"):
        assert not getattr(estimate, name)[invalid].any(), name
        assert np.isfinite(getattr(estimate, name)).all(), name
    assert (estimate.depth[~invalid] > 0).all()
    assert not estimate.normal[2, 0].any()
    length = np.linalg.norm(estimate.normal[~invalid], axis=-1)
    assert ((np.abs(length - 1) < 1e-6) | (length == 0)).all() and (length == 0).sum() == 1
    assert estimate.confidence[2, :3].tolist() == [0, 1, 0]


def test_device_of_reads_the_parameters():
    assert device_of(PlaneNetwork([], 1.0)) == torch.device("cpu")
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(torch.nn.Identity()) == torch.device("cpu")


def test_what_cannot_be_batched_is_an_input_error():
    small, wide = (posed(make_view(f"{w}", w, 64, 60, (0, 0, 0), (0, 0, 0))) for w in (64, 96))
    network = PlaneNetwork([], 1.0)
    with pytest.raises(InputError, match="cannot share a batch"):
        to_stereo_batch([small, wide], [[small], [small]], network)
    with pytest.raises(InputError, match="at least one"):
        predict(network, [small], [[]])
    with pytest.raises(InputError, match="--min-depth"):
        predict(network, [replace(small, view=replace(small.view, depth_range=None))], [[small]])
    with pytest.raises(InputError, match="read_view"):
        predict(network, [replace(small, rgb=small.rgb[:, :32])], [[small]])


def test_the_test_scene_is_not_degenerate():
    """The slanted plane is far from fronto-parallel, or half of these tests would say nothing."""
    ref = make_view("ref", 96, 64, 80, (4, -7, 2), (0.1, 0, 0))
    normal, _ = plane_in_cam(ref)
    assert np.degrees(np.arccos(-normal[2])) > 20
    assert rotation_angle_deg(inverse(ref.cam_from_world)[:3, :3]) > 5
