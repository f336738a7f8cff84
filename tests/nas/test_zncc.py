"""The network that learned nothing: its parts against their definitions, and planes that it has to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from plane_world import PLANE_POINT_IN_WORLD, make_view, plane_depth, plane_in_cam

from nas.setups import angle_deg, random_batch, relative_difference
from nasrecon.geometry import transform
from nasrecon.inference.adapter import Photo
from nasrecon.inference.passes import predict, to_stereo_batch
from nasrecon.nas import zncc
from nasrecon.nas.volume import plane_inv_depth
from nasrecon.nas.weights import load_network, weights_digest
from nasrecon.nas.zncc import ZnccNetwork, best_label, confidence, match, semi_global

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    return ZnccNetwork()


def plane_set():
    """The slanted plane under waves of many lengths: three that are alike, as in ``plane_world``, repeat themselves."""
    ref = make_view("ref", 160, 128, 150, (4, -7, 2), (0.1, 0, 0), near=1.5)
    sources = [make_view(f"src{x}", 160, 128, 150, (1, -4, 0), (0.1 + x, 0.05, 0)) for x in (-0.3, 0.25)]
    return drawn(ref), [drawn(source) for source in sources]


# Two points of the plane, at the left and right end of a strip that is about upright in all views.
STRIP_IN_WORLD = PLANE_POINT_IN_WORLD + np.array([[-0.25, 0, -0.0625], [0.55, 0, 0.1375]])


def drawn(view):
    waves = np.random.default_rng(0).normal(0, 8, size=(2, 40))
    position = transform(view.world_from_cam, view.camera.unproject_depth(plane_depth(view)))[..., :2]
    grey = 127.5 + 20 * np.sin(2 * np.pi * position @ waves + np.arange(40)).sum(axis=-1)
    rgb = np.repeat(np.rint(grey.clip(0, 255)).astype(np.uint8)[..., None], 3, axis=-1)
    return Photo(rgb=rgb, view=view)


def test_finds_a_slanted_plane(network):
    ref, sources = plane_set()
    (estimate,) = predict(network, [ref], [sources])
    truth = plane_depth(ref.view)
    error = np.abs(estimate.depth - truth) / truth
    # Planes are 3 % of the depth apart, and the price of a step flattens a slope of a plane each 6 px.
    assert np.median(error) < 0.01 and np.quantile(error, 0.9) < 0.05
    off = np.degrees(np.arccos(np.clip(estimate.normal @ plane_in_cam(ref.view)[0], -1, 1)))
    assert np.median(off) < 8
    assert np.median(estimate.confidence) > 0.6
    assert np.mean(np.abs(estimate.depth - truth) < estimate.sigma) > 0.68


def test_neighbors_fill_what_matching_alone_leaves_open(network):
    """Z1 is the best plane of each pixel alone, Z2 after semi-global matching; a strip shows nothing but noise."""
    ref, sources = plane_set()
    view = ref.view
    noise = np.random.default_rng(0)
    strip = (slice(None), slice(48, 78))
    plain = [Photo(rgb=photo.rgb.copy(), view=photo.view) for photo in (ref, *sources)]
    for photo in plain:
        image = photo.rgb
        at = photo.view.camera.project(transform(photo.view.cam_from_world, STRIP_IN_WORLD))[:, 0]
        part = image[:, int(at.min()) : int(at.max())]
        part[...] = 128 + noise.normal(0, 3, size=part.shape[:2])[..., None]
    found = network(to_stereo_batch(plain[:1], [plain[1:]], network))
    truth = torch.from_numpy(plane_depth(view)) / view.depth_range[0]
    depths = (found.depth_initial, found.depth, found.refined_depth)
    wrong = [((depth[0] / truth - 1).abs() > 0.1)[strip].double().mean() for depth in depths]
    assert wrong[0] > 0.4 and wrong[1] < 0.1 and wrong[2] < 0.1
    steps = [float(depth.diff().abs().sum()) for depth in depths]
    assert steps[2] < 0.95 * steps[1]  # the median takes out single pixels
    sure = found.confidence[0]
    assert sure[strip].mean() < 0.5 * sure[:, :40].mean()


def test_unit_of_the_scene_does_not_matter(network):
    batch = random_batch(1, 2, 64, 64)
    scaled = batch.src_from_ref.clone()
    scaled[..., :3, 3] *= 1000
    big = replace(batch, src_from_ref=scaled, min_depth=batch.min_depth * 1000)
    small, large = network(batch), network(big)
    for name in ("depth_initial", "depth", "refined_depth", "sigma"):
        # Rounding moves a pixel by 1e-5 px, the parabola makes a little more of it; ties may fall otherwise.
        off = (getattr(large, name) / 1000 / getattr(small, name) - 1).abs()
        assert off.quantile(0.99) < 1e-2, name
    assert (small.confidence - large.confidence).abs().quantile(0.99) < 1e-3


def test_a_batch_equals_its_items(network):
    batch = random_batch(2, 2, 64, 96)
    both = network(batch)
    for i in range(2):
        alone = network(batch.item(i))
        assert relative_difference(both.refined_depth[i : i + 1], alone.refined_depth) == 0
        assert angle_deg(both.refined_normal[i : i + 1], alone.refined_normal).max() == 0


def test_shapes_and_ranges(network):
    found = network(random_batch(2, 3, 64, 96))
    for name in ("depth_initial", "depth", "refined_depth", "confidence", "sigma"):
        value = getattr(found, name)
        assert value.shape == (2, 64, 96) and value.isfinite().all() and (value >= 0).all(), name
    assert found.confidence.max() <= 1
    for normal in (found.normal, found.refined_normal):
        assert normal.shape == (2, 3, 64, 96)
        torch.testing.assert_close(normal.norm(dim=1), torch.ones(2, 64, 96))


def naive_semi_global(costs, grey):
    """The recursion, pixel by pixel, as Hirschmueller's equation 13 has it."""
    h, w, D = costs.shape
    total = np.zeros_like(costs)
    for down, right in zncc.PATHS:
        path = np.zeros_like(costs)
        for y in range(h)[:: down or 1]:
            for x in range(w)[:: right or 1]:
                v, u = y - down, x - right
                path[y, x] = costs[y, x]
                if not (0 <= v < h and 0 <= u < w):
                    continue
                before = path[v, u]
                jump = max(zncc.JUMP / (1 + abs(grey[y, x] - grey[v, u]) / zncc.EDGE), 1.5 * zncc.STEP)
                for d in range(D):
                    ways = [before[d], before.min() + jump]
                    ways += [before[e] + zncc.STEP for e in (d - 1, d + 1) if 0 <= e < D]
                    path[y, x, d] += min(ways) - before.min()
        total += path
    return total


@pytest.mark.parametrize("prices", [(1.0, 10.0), (0.05, 0.2)])
def test_semi_global_matching_is_its_recursion(monkeypatch, prices):
    monkeypatch.setattr(zncc, "STEP", prices[0])
    monkeypatch.setattr(zncc, "JUMP", prices[1])
    draw = np.random.default_rng(3)
    costs, grey = draw.uniform(size=(6, 5, 7)), draw.uniform(-1, 1, size=(6, 5))
    found = semi_global(torch.from_numpy(costs), torch.from_numpy(grey)).numpy()
    np.testing.assert_allclose(found, naive_semi_global(costs, grey), rtol=1e-12)


def still_camera(h, w, count):
    K = torch.tensor([[[60.0, 0, w / 2], [0, 60, h / 2], [0, 0, 1]]])
    return K, K[:, None].repeat(1, count, 1, 1), torch.eye(4).repeat(1, count, 1, 1)


def test_correlation_is_one_for_the_same_image_in_any_light():
    g = torch.Generator().manual_seed(0)
    ref = torch.rand(1, 1, 24, 32, generator=g) - 0.5
    K, src_K, src_from_ref = still_camera(24, 32, 1)
    inv_depth = plane_inv_depth(torch.ones(1), 11)
    for source in (ref, 0.6 * ref + 0.2):
        scores = match(ref, [source], K, src_K, src_from_ref, inv_depth)
        assert scores.shape == (24, 32, 11)
        # Windows have a variance of 1/12 or so: the noise term takes 1 % at most, at 0.36 of it.
        assert scores.min() > 0.97
    inverted = match(ref, [-ref], K, src_K, src_from_ref, inv_depth)
    assert inverted.max() < -0.97


def test_flat_windows_and_unseen_places_score_nothing():
    g = torch.Generator().manual_seed(0)
    flat = torch.full((1, 1, 24, 32), 0.3) + 0.005 * torch.randn(1, 1, 24, 32, generator=g)
    textured = torch.rand(1, 1, 24, 32, generator=g) - 0.5
    K, src_K, src_from_ref = still_camera(24, 32, 1)
    inv_depth = plane_inv_depth(torch.ones(1), 3)
    # Noise of 0.6 levels against itself: the constant NOISE keeps it from looking like texture.
    assert match(flat, [flat], K, src_K, src_from_ref, inv_depth).abs().max() < 0.15
    aside = src_from_ref.clone()
    aside[..., 0, 3] = 5  # by 200 px on the middle plane; plane 0 stays
    scores = match(textured, [textured], K, src_K, aside, inv_depth)
    assert scores[..., 0].min() > 0.97 and (scores[..., 1:] == 0).all()


def test_useless_sources_are_outvoted_where_there_are_more_than_two():
    g = torch.Generator().manual_seed(0)
    ref, other = (torch.rand(1, 1, 24, 32, generator=g) - 0.5 for _ in range(2))
    inv_depth = plane_inv_depth(torch.ones(1), 3)
    for sources, least, most in [([ref, other, ref, other], 0.97, 1), ([ref, other], 0.1, 0.9)]:
        K, src_K, src_from_ref = still_camera(24, 32, len(sources))
        scores = match(ref, sources, K, src_K, src_from_ref, inv_depth)
        assert least < scores.min() and scores.max() <= most


def test_parabola_finds_the_fraction_of_a_plane():
    labels = torch.arange(9.0)
    true = torch.linspace(0.6, 7.4, 35)
    costs = (labels - true[:, None, None]) ** 2
    torch.testing.assert_close(best_label(costs)[:, 0], true)
    falling, rising = -labels[None, None], labels[None, None]
    assert best_label(falling).item() == 8 and best_label(rising).item() == 0
    assert best_label(torch.zeros(1, 1, 9)).item() == 0


def test_median_takes_out_specks_and_keeps_edges():
    label = torch.full((9, 12), 5.0)
    label[:, 6:] = 9
    speck = label.clone()
    speck[4, 2:4] = 60
    assert torch.equal(zncc._median(speck), label)


def test_confidence_asks_for_agreement_and_for_no_rival():
    costs = torch.full((1, 3, 9), 0.4)
    costs[0, :, 4] = 0.1
    costs[0, 1, 8] = 0.11  # a rival
    scores = torch.full((1, 3, 9), 0.9)
    scores[0, 2] = 0.1  # the windows do not agree
    sure, rivalled, unlike = confidence(scores, costs)[0].tolist()
    assert sure == pytest.approx((0.9 * 0.75) ** 0.5) and rivalled < 0.5 * sure and unlike < 0.5 * sure


def test_is_loaded_by_name_like_the_others():
    network = load_network("zncc", device="cpu")
    assert isinstance(network, ZnccNetwork) and not list(network.parameters()) and not network.state_dict()
    assert weights_digest("zncc") == weights_digest("zncc") != ""
