"""The paper's network: equal to the published networks, and the laws that follow from what it computes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.setups import angle_deg, drawn_network, golden, official_keys, random_batch, relative_difference, rotation, run
from nasrecon.errors import InputError
from nasrecon.nas import paper
from nasrecon.nas.network import StereoBatch
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.paper_blocks import CappedAvgPool, UNet
from nasrecon.nas.volume import pixel_rays, scaled_K

DEPTHS = ("depth_initial", "depth", "refined_depth")
NORMALS = ("normal", "refined_normal")
# Rounding differs between batch sizes, orders of summation and layouts. The drawn parameters amplify it: to 1e-4 on the
# golden fixtures, where this network and the published one do the same arithmetic in different order.
DEPTH_TOLERANCE, ANGLE_TOLERANCE_DEG = 1e-3, 0.05


@pytest.fixture(scope="module")
def small() -> PaperNetwork:
    return drawn_network(planes=16)


def assert_same(found, expected, scale: float = 1.0) -> None:
    for name in DEPTHS:
        assert relative_difference(getattr(found, name) / scale, getattr(expected, name)) < DEPTH_TOLERANCE, name
    for name in NORMALS:
        assert angle_deg(getattr(found, name), getattr(expected, name)).max() < ANGLE_TOLERANCE_DEG, name


@pytest.mark.parametrize("which", ["a", "b"])
def test_equals_the_published_networks(which: str) -> None:
    data, network, batch = golden(which)
    found = run(network, batch)
    assert relative_difference(found.depth_initial, torch.from_numpy(data["depth_initial"])) <= 1e-4
    assert relative_difference(found.depth, torch.from_numpy(data["depth"])) <= 5e-4
    assert relative_difference(found.refined_depth, torch.from_numpy(data["refined_depth"])) <= 5e-4
    assert angle_deg(found.normal, torch.from_numpy(data["normal"]).permute(0, 3, 1, 2)).max() <= 0.1
    assert angle_deg(found.refined_normal, torch.from_numpy(data["refined_normal"])).max() <= 0.1
    assert found.depth.std() > 0.05, "the fixture must not be flat"


def test_state_dict_has_the_published_names() -> None:
    published, network = official_keys(), PaperNetwork()
    for part, name in ((network.mvdnet, "mvdnet"), (network.consistency, "cons")):
        assert {k: list(v.shape) for k, v in part.state_dict().items()} == published[name]


def test_size_is_the_papers() -> None:
    network = PaperNetwork()
    assert (len(network.mvdnet.state_dict()), len(network.consistency.state_dict())) == (472, 128)
    count = [sum(p.numel() for p in part.parameters()) for part in (network.mvdnet, network.consistency)]
    assert [round(n / 1e6, 2) for n in count] == [4.64, 13.40]


def test_shapes_and_ranges(small: PaperNetwork) -> None:
    batch = random_batch(2, 2, 64, 84)
    found = run(small, batch)
    for name in (*DEPTHS, "confidence", "sigma"):
        assert getattr(found, name).shape == (2, 64, 84), name
        assert torch.isfinite(getattr(found, name)).all(), name
    for name in NORMALS:
        length = getattr(found, name).norm(dim=1)
        torch.testing.assert_close(length, torch.ones_like(length))
    assert found.confidence.min() >= 0 and found.confidence.max() <= 1 and found.confidence.std() > 0.01
    assert found.sigma.min() > 0
    # The mean of labels 0 ... D - 1 is nowhere nearer than the last plane.
    assert (found.depth >= batch.min_depth[:, None, None] * 16 / 15 * (1 - 1e-5)).all()


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_scene_times_s_gives_depth_times_s(small: PaperNetwork, scale: float) -> None:
    """Through the consistency module too, which reads raw depth. A power of two scales floats without rounding."""
    batch = random_batch(2, 2, 64, 64)
    src_from_ref = batch.src_from_ref.clone()
    src_from_ref[..., :3, 3] *= scale
    scaled = replace(batch, src_from_ref=src_from_ref, min_depth=batch.min_depth * scale)
    found, expected = run(small, scaled), run(small, batch)
    for name in (*DEPTHS, "sigma"):
        torch.testing.assert_close(getattr(found, name) / scale, getattr(expected, name), rtol=1e-6, atol=0)
    for name in (*NORMALS, "confidence"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-6)


def test_consistency_module_reads_the_units_of_its_training(small: PaperNetwork) -> None:
    batch = random_batch(1, 1, 64, 64)
    network = drawn_network(planes=16, trained_min_depth=0.25)
    found = run(network, batch)
    factor = 0.25 / batch.min_depth
    depth, normal = network.consistency(found.depth * factor, found.normal)
    torch.testing.assert_close(found.refined_depth, (depth / factor).detach())
    torch.testing.assert_close(found.refined_normal, normal.detach())
    assert relative_difference(found.refined_depth, run(small, batch).refined_depth) > 0.01, "0.5 must not do the same"


def test_order_of_the_sources_does_not_matter(small: PaperNetwork) -> None:
    batch = random_batch(1, 3, 64, 64)
    order = [2, 0, 1]
    turned = replace(
        batch,
        src_images=batch.src_images[:, order],
        src_K=batch.src_K[:, order],
        src_from_ref=batch.src_from_ref[:, order],
    )
    assert_same(run(small, turned), run(small, batch))
    mixed = replace(batch, src_images=batch.src_images[:, order])  # images of other cameras: not the same
    assert relative_difference(run(small, mixed).depth, run(small, batch).depth) > 0.02


def test_scores_average_and_normal_evidence_sums_over_sources(small: PaperNetwork) -> None:
    batch = random_batch(1, 1, 64, 64)
    twice = replace(
        batch,
        src_images=batch.src_images.repeat(1, 2, 1, 1, 1),
        src_K=batch.src_K.repeat(1, 2, 1, 1),
        src_from_ref=batch.src_from_ref.repeat(1, 2, 1, 1),
    )
    with torch.inference_mode():
        ref = small.mvdnet.feature_extraction(batch.ref_image)
        (scores, evidence), (scores2, evidence2) = small.mvdnet.match(batch, ref), small.mvdnet.match(twice, ref)
    torch.testing.assert_close(scores2, scores, atol=1e-5, rtol=1e-4)
    for one, two in zip(evidence, evidence2, strict=True):
        torch.testing.assert_close(two, 2 * one, atol=1e-4, rtol=1e-4)


def test_a_batch_equals_its_items(small: PaperNetwork) -> None:
    batch = random_batch(2, 2, 64, 68)
    together = run(small, batch)
    for b in range(2):
        item = batch.item(b)
        alone = run(small, item)
        for name in DEPTHS:
            assert relative_difference(getattr(together, name)[b : b + 1], getattr(alone, name)) < DEPTH_TOLERANCE, name
        for name in NORMALS:
            assert angle_deg(getattr(together, name)[b : b + 1], getattr(alone, name)).max() < ANGLE_TOLERANCE_DEG, name


def warped_features(network: PaperNetwork, batch: StereoBatch, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return what the 3D CNN gets of each source: features (B, 32, D, h, w) warped to the planes."""
    seen, original = [], network.mvdnet.first_layers
    monkeypatch.setattr(
        network.mvdnet, "first_layers", lambda warped, half: (seen.append(warped.clone()), original(warped, half))[1]
    )
    run(network, batch)
    return seen


def test_identical_views_give_an_identity_warp(small: PaperNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(1, 1, 64, 80)
    images, K = batch.ref_image[:, None], batch.ref_K[:, None]
    batch = replace(batch, src_images=images, src_K=K, src_from_ref=torch.eye(4)[None, None])
    with torch.inference_mode():
        ref = small.mvdnet.feature_extraction(batch.ref_image)
    (warped,) = warped_features(small, batch, monkeypatch)
    torch.testing.assert_close(warped, ref[:, :, None].expand_as(warped), atol=1e-4, rtol=1e-4)


def test_each_view_has_its_own_K(small: PaperNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features painted on the plane of label 5 and seen through different K agree there, and on no other plane."""
    h, w, label, min_depth = 32, 40, 5, 0.5
    K = torch.tensor([[[170.0, 0, 79.0], [0, 165.0, 63.0], [0, 0, 1]], [[130.0, 0, 84.0], [0, 140.0, 60.0], [0, 0, 1]]])
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = rotation(torch.tensor([0.02, -0.04, 0.03])), torch.tensor([0.25, -0.1, 0.05])
    depth = min_depth * 16 / label
    small_K = scaled_K(K, 4, corner_aligned=True)
    ref_points = pixel_rays(small_K[:1], h, w)[0] * depth
    center, rays = -T[:3, :3].T @ T[:3, 3:], T[:3, :3].T @ pixel_rays(small_K[1:], h, w)[0]
    src_points = center + rays * (depth - center[2]) / rays[2]
    phase = torch.arange(1, 33.0)[:, None]
    paint = lambda points: torch.sin(3 * points[:1] + 2 * points[1:2] + phase).view(1, 32, h, w)  # noqa: E731
    features = iter([paint(ref_points), paint(src_points)])
    monkeypatch.setattr(small.mvdnet.feature_extraction, "forward", lambda image: next(features))
    batch = StereoBatch(
        ref_image=torch.zeros(1, 3, 4 * h, 4 * w),
        src_images=torch.zeros(1, 1, 3, 4 * h, 4 * w),
        ref_K=K[:1],
        src_K=K[None, 1:],
        src_from_ref=T[None, None],
        min_depth=torch.tensor([min_depth]),
    )
    (warped,) = warped_features(small, batch, monkeypatch)
    inside = warped.abs().amax(dim=1)[0] > 0  # (D, h, w)
    error = (warped[0] - paint(ref_points)[0][:, None]).abs().amax(dim=0)
    assert inside[label].float().mean() > 0.5
    assert error[label][inside[label]].max() < 2e-2  # bilinear interpolation of phases that step 0.15 rad and less
    for other in (label - 1, label + 1):
        assert error[other][inside[other]].median() > 0.1


@pytest.mark.parametrize("size", [(64, 64), (68, 100), (64, 132)])
def test_small_and_odd_sides(small: PaperNetwork, size: tuple[int, int]) -> None:
    found = run(small, random_batch(1, 1, *size))
    assert found.refined_depth.shape == (1, *size) and torch.isfinite(found.refined_depth).all()


@pytest.mark.parametrize("size", [(60, 64), (64, 66), (65, 64)])
def test_other_sides_are_refused(small: PaperNetwork, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{size[1]}x{size[0]}"):
        small(random_batch(1, 1, *size))


def test_pooling_is_capped_only_where_the_published_network_fails() -> None:
    for h, w in ((32, 32), (33, 63), (32, 70)):
        x = torch.rand(1, 2, h, w)
        for window in (4, 8, 16, 32):
            assert torch.equal(CappedAvgPool(window)(x), F.avg_pool2d(x, window))
    x = torch.rand(1, 2, 16, 40)
    torch.testing.assert_close(CappedAvgPool(32)(x)[..., 0], x[..., :32].mean(dim=(2, 3))[..., None])


def test_unet_keeps_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd sides lose a row on the way down; it comes back as zeros at the bottom: pooling starts at the top."""
    net, seen = UNet(4).eval(), []
    original = net.up4["conv"].forward
    monkeypatch.setattr(net.up4["conv"], "forward", lambda x: (seen.append(x.clone()), original(x))[1])
    for size in ((64, 64), (68, 92), (17, 31)):
        assert run(net, torch.rand(1, 4, *size)).shape == (1, 4, *size)
    from_below = seen[-1][0, 64:].abs().sum(dim=0)
    assert from_below[-1].max() == 0 and from_below[:, -1].max() == 0 and (from_below[:-1, :-1] > 0).all()


def test_volume_needs_no_concatenation(small: PaperNetwork) -> None:
    """The plain twin: concat(reference on all planes, warped) through ``dres0``."""
    g = torch.Generator().manual_seed(0)
    net = small.mvdnet
    ref, warped = torch.randn(2, 32, 9, 11, generator=g), torch.randn(2, 32, 16, 9, 11, generator=g)
    volume = torch.cat([ref[:, :, None].expand_as(warped), warped], dim=1)
    with torch.inference_mode():
        found = net.first_layers(warped, paper.constant_half(ref, net.dres0[0][0].weight[:, :32]))
        torch.testing.assert_close(found, net.dres0(volume), atol=1e-5, rtol=1e-5)


def test_context_needs_no_concatenation(small: PaperNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain twin: concat(reference, slice) through ``convs``, plane by plane; any number of planes at once."""
    g = torch.Generator().manual_seed(0)
    net = small.mvdnet
    ref, scores = torch.randn(2, 32, 9, 11, generator=g), torch.randn(2, 16, 9, 11, generator=g)
    with torch.inference_mode():
        plain = [scores[:, i] + net.convs(torch.cat([ref, scores[:, i : i + 1]], dim=1))[:, 0] for i in range(16)]
        expected = torch.stack(plain, dim=1)
        for count in (3, 8, 64):
            monkeypatch.setattr(paper, "SLICES_AT_ONCE", count)
            torch.testing.assert_close(net.aggregate(ref, scores), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pool_slices", [1, 3])
def test_normals_are_the_sum_of_the_slices(pool_slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain twin of the normal branch, and its number of slices: D / 8 with three poolings, D / 2 with one."""
    net = drawn_network(planes=16, pool_slices=pool_slices).mvdnet
    g = torch.Generator().manual_seed(0)
    evidence = [torch.randn(2, 32, 16, 8, 10, generator=g) for _ in range(2)]
    rays = torch.randn(2, 3, 8, 10, generator=g)
    with torch.inference_mode():
        x = net.wc0(torch.cat([net.coordinates(rays), *evidence], dim=1))
        for pool in [net.pool1, net.pool2, net.pool3][:pool_slices]:
            x = pool(x)
        assert x.shape[2] == {1: 8, 3: 2}[pool_slices]
        expected = sum(net.n_convs(x[:, :, i]) for i in range(x.shape[2]))
        for count in (3, 8):
            monkeypatch.setattr(paper, "SLICES_AT_ONCE", count)
            torch.testing.assert_close(net.normals(evidence, rays), expected, atol=1e-4, rtol=1e-4)


def test_coordinates_are_those_of_the_voxels(small: PaperNetwork) -> None:
    """Pixel lifted to the plane's depth, over 2 D min_depth, clamped; plane 0 clamps to the sign."""
    rays = torch.tensor([[0.4, -0.2, 1.0], [0.0, 30.0, 1.0]]).T.reshape(1, 3, 1, 2)
    found = small.mvdnet.coordinates(rays)[0, :, :, 0].numpy()
    for min_depth in (0.5, 40.0):
        for label in range(1, 16):
            lifted = rays[0, :, 0].numpy() * (min_depth * 16 / label)
            np.testing.assert_allclose(found[:, label], np.clip(lifted / (2 * 16 * min_depth), -1, 1), rtol=1e-6)
    assert found[:, 0].T.tolist() == [[1, -1, 1], [0, 1, 1]]


def test_normals_get_the_rays_of_the_feature_pixels(small: PaperNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature pixel (0, 0) sits on image pixel (0, 0), its neighbour four pixels on."""
    batch, seen, original = random_batch(1, 1, 64, 68), [], small.mvdnet.normals
    monkeypatch.setattr(small.mvdnet, "normals", lambda volumes, rays: (seen.append(rays), original(volumes, rays))[1])
    run(small, batch)
    y, x = np.mgrid[:16, :17] * 4.0
    expected = np.linalg.inv(batch.ref_K[0].double()) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    np.testing.assert_allclose(seen[0][0].flatten(1), expected, atol=1e-5)


@pytest.mark.parametrize("pool_slices", [1, 3])
def test_every_parameter_learns(pool_slices: int) -> None:
    """In training mode gradients reach every parameter of the variant, and only those."""
    torch.manual_seed(0)
    network = PaperNetwork(planes=16, pool_slices=pool_slices).train()
    found = network(random_batch(2, 2, 64, 64))
    total = sum(getattr(found, name).log().mean() for name in DEPTHS[:2])
    total = total + found.refined_depth.mean() + found.normal.mean() + found.refined_normal.mean()
    total.backward()
    unused = () if pool_slices == 3 else ("mvdnet.pool2", "mvdnet.pool3")
    for name, parameter in network.named_parameters():
        if name.startswith(unused):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # A bias in front of BatchNorm has no effect.
            idle = name.startswith("consistency") and name.endswith(("conv.0.bias", "conv.3.bias"))
            assert idle or parameter.grad.abs().max() > 0, name
    counted = [int(getattr(network.mvdnet, f"pool{i}")[0][1].num_batches_tracked) for i in (1, 2, 3)]
    assert counted == [1, *[0 if pool_slices == 1 else 1] * 2], "the importer tells the variants apart by this"


def test_sigma_is_the_spread_of_the_second_volume(small: PaperNetwork) -> None:
    """From the scores, by the definition: upsample, softmax, moments."""
    batch = random_batch(1, 1, 64, 64)
    found = run(small, batch)
    with torch.inference_mode():
        scores, scores_in_context, _ = small.mvdnet(batch)
    for name, volume in (("depth_initial", scores), ("depth", scores_in_context)):
        up = F.interpolate(volume[:, None], (16, 64, 64), mode="trilinear", align_corners=False)[:, 0]
        prob = up.double().softmax(dim=1)
        labels = torch.arange(16.0, dtype=torch.float64)[None, :, None, None]
        mean = (prob * labels).sum(1)
        min_depth = float(batch.min_depth)
        torch.testing.assert_close(getattr(found, name).double(), min_depth * 16 / mean, rtol=1e-4, atol=0)
    spread = (prob * (labels - mean[:, None]) ** 2).sum(1).sqrt()
    expected = spread * min_depth * 16 / mean.clamp_min(0.5) ** 2
    torch.testing.assert_close(found.sigma.double(), expected, rtol=1e-3, atol=1e-4)


def test_only_known_variants() -> None:
    with pytest.raises(InputError, match="pool_slices"):
        PaperNetwork(pool_slices=2)


def test_published_dilations() -> None:
    """Shapes do not show the dilation: 1, 2, 4, 8, 16, 1, 1 in both stacks, as trained (the paper's text differs)."""
    network = PaperNetwork()
    for stack in (network.mvdnet.convs, network.mvdnet.n_convs):
        found = [m.dilation[0] for m in stack.modules() if isinstance(m, nn.Conv2d)]
        assert found == [1, 2, 4, 8, 16, 1, 1] and math.prod(found) == 1024
