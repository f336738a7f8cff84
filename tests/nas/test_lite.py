"""Laws of the house network: it knows no unit, no order of sources, no batch; caches and folding change nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from nasrecon.nas.convolution import flop_formulas
from nasrecon.nas.heads import best_hypotheses
from nasrecon.nas.int8 import int8_convolutions, is_supported
from nasrecon.nas.lite import LiteNetwork, _score
from nasrecon.nas.lite_features import CACHED_IMAGES, FeatureCache, Features
from nasrecon.nas.lite_matching import correlate_near
from nasrecon.nas.network import StereoBatch
from nasrecon.nas.precision import fold_normalization
from nasrecon.nas.resize import shrink_batch
from nasrecon.nas.volume import pixel_rays
from nasrecon.nas.weights import load_network


def stereo(batch: int = 1, sources: int = 2, side: int = 64, seed: int = 0) -> StereoBatch:
    g = torch.Generator().manual_seed(seed)
    src_from_ref = torch.eye(4).repeat(batch, sources, 1, 1)
    src_from_ref[..., :3, 3] = (torch.rand(batch, sources, 3, generator=g) - 0.5) * 0.4
    K = torch.tensor([[0.9 * side, 0, side / 2 - 0.3], [0, 0.95 * side, side / 2 + 1.2], [0, 0, 1]])
    return StereoBatch(
        ref_image=torch.rand(batch, 3, side, side, generator=g) * 2 - 1,
        src_images=torch.rand(batch, sources, 3, side, side, generator=g) * 2 - 1,
        ref_K=K.repeat(batch, 1, 1), src_K=K.repeat(batch, sources, 1, 1), src_from_ref=src_from_ref,
        min_depth=torch.full((batch,), 0.7),
    )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    torch.manual_seed(3)
    network = LiteNetwork().eval()
    with torch.no_grad():  # the layers that start at or near zero
        network.consistency.out.weight.normal_(std=0.05)
        network.consistency.recur.weight.normal_(std=0.05)
        network.sharpener.out.weight.normal_(std=0.05)
        network.aggregate.out.weight.normal_(std=0.05)
    return network.requires_grad_(False)


def run(network: LiteNetwork, batch: StereoBatch) -> torch.Tensor:
    with torch.inference_mode():
        return network(batch).refined_depth


def test_compiled_matching_agrees_with_that_of_training(network: LiteNetwork) -> None:
    """Pixels behind a source's camera, outside its image and on its border are among them."""
    g = torch.Generator().manual_seed(5)
    batch = stereo(batch=2, sources=3, side=48)
    turned = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.2, 0.3], [0.2, 0, 0.1], [-0.3, -0.1, 0]]))
    batch.src_from_ref[:, 1, :3, :3] = turned
    batch.src_from_ref[:, 2, :3, :3] = -turned * torch.tensor([-1.0, 1, 1])
    batch.src_from_ref[0, 0] = torch.eye(4)
    cameras = (batch.ref_K, batch.src_K, batch.src_from_ref)
    features = torch.randn(2, 4, 16, 48, 48, generator=g)
    inv_depth = torch.rand(2, 5, 48, 48, generator=g)
    planes = torch.linspace(0, 1, 12).repeat(2, 1)
    for threads in (1, 3):
        with torch.enable_grad():
            expected = network.sweep(features, cameras, planes)
            weights = torch.rand(2, 3, 48, 48, generator=g)
            expected += correlate_near(features, cameras, weights, inv_depth, 2)
        with torch.no_grad(), use_threads(threads):
            found = network.sweep(features, cameras, planes)
            found += correlate_near(features, cameras, weights, inv_depth, 2)
        for a, b in zip(expected, found, strict=True):
            assert a.shape == b.shape and a.abs().max() > 0.1
            off = (a - b).abs() > 2e-3  # but for points within rounding of an image's border
            assert off.float().mean() < 1e-4, off.float().mean()


def test_depths_that_are_not_numbers_are_outside_of_all_sources() -> None:
    batch = stereo(batch=1, sources=2, side=32)
    cameras, features = (batch.ref_K, batch.src_K, batch.src_from_ref), torch.randn(1, 3, 16, 32, 32)
    weights, inv_depth = torch.ones(1, 2, 32, 32), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = correlate_near(features, cameras, weights, inv_depth, 2)[0]
        for value in (torch.nan, torch.inf, -torch.inf):
            inv_depth[0, 1, 7:9] = value
            found, visible = correlate_near(features, cameras, weights, inv_depth, 2)
            assert torch.isfinite(found).all() and torch.isfinite(visible).all()
            assert not found[0, [1, 4], 7:9].any()
            torch.testing.assert_close(found[:, ::3], expected[:, ::3])


@contextlib.contextmanager
def use_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(480, 640), (432, 624)])
def test_half_the_size_shows_the_same_rays(size: tuple[int, int]) -> None:
    """An image whose colour is the ray of its pixel still is, once shrunk, with the K that comes with it."""
    H, W = size
    K = torch.tensor([[[500.0, 0, 322.3], [0, 510, 215.9], [0, 0, 1]]])
    rays = pixel_rays(K, H, W).view(1, 3, H, W)
    batch = replace(stereo(sources=1), ref_image=rays, src_images=rays[:, None], ref_K=K, src_K=K[:, None])
    small = shrink_batch(batch, 0.5, 16)
    h, w = small.ref_image.shape[-2:]
    assert h % 16 == w % 16 == 0 and abs(h - H / 2) <= 8 and abs(w - W / 2) <= 8
    for image, small_K in ((small.ref_image, small.ref_K), (small.src_images[:, 0], small.src_K[:, 0])):
        expected = pixel_rays(small_K, h, w).view(1, 3, h, w)
        assert (image - expected)[..., 2:-2, 2:-2].abs().max() < 2e-4  # a twentieth of a pixel


def test_two_surfaces_are_two_hypotheses_and_no_mean() -> None:
    prob = torch.full((1, 64, 1, 1), 1e-4)
    prob[0, 10], prob[0, 11], prob[0, 40] = 0.3, 0.3, 0.39
    labels, masses = best_hypotheses(prob / prob.sum())
    assert torch.allclose(labels.flatten(), torch.tensor([40.0, 10.5]), atol=0.02)
    assert masses[0, 1] > masses[0, 0]  # the first is the most probable plane, not the larger mass
    at_the_end = torch.full((1, 64, 1, 1), 1e-6)
    at_the_end[0, 63] = 1.0
    assert best_hypotheses(at_the_end)[0][0, 0] == pytest.approx(63, abs=1e-3)


def test_depth_scales_with_the_scene_and_normals_stay(network: LiteNetwork) -> None:
    batch = stereo()
    bigger = batch.src_from_ref.clone()
    bigger[..., :3, 3] *= 1000
    with torch.inference_mode():
        one = network(batch)
        other = network(replace(batch, src_from_ref=bigger, min_depth=batch.min_depth * 1000))
    off = (other.refined_depth / (one.refined_depth * 1000) - 1).abs()
    assert off.median() < 1e-3 and (off < 1e-2).float().mean() > 0.98  # a tie of hypotheses may turn by rounding
    assert (other.refined_normal - one.refined_normal).abs().median() < 5e-3


def test_order_of_sources_does_not_matter_and_a_source_does(network: LiteNetwork) -> None:
    batch = stereo(sources=3)
    pick = lambda order: replace(  # noqa: E731
        batch, src_images=batch.src_images[:, order], src_K=batch.src_K[:, order],
        src_from_ref=batch.src_from_ref[:, order],
    )  # fmt: skip
    one, other, fewer = run(network, batch), run(network, pick([2, 0, 1])), run(network, pick([0]))
    assert (one / other - 1).abs().median() < 1e-3
    assert (one / fewer - 1).abs().median() > 5e-3


def test_a_batch_equals_its_items(network: LiteNetwork) -> None:
    batch = stereo(batch=2, seed=5)
    together = run(network, batch)
    for i in (0, 1):
        assert (together[i] / run(network, batch.item(i))[0] - 1).abs().median() < 1e-3


def test_with_gradients_the_same_is_computed(network: LiteNetwork) -> None:
    """The encoder's and the sweep's ways without gradients equal those with them."""
    batch = stereo(seed=6)
    with torch.enable_grad():
        whole = network(batch).refined_depth.detach()
    assert (run(network, batch) / whole - 1).abs().median() < 1e-4


@pytest.mark.parametrize("width", [31, 32])
def test_the_score_of_rounded_features_is_that_of_their_values(width: int) -> None:
    torch.manual_seed(2)
    r, weights = torch.randn(2, width, 5, 3, 7).bfloat16(), torch.randn(width)
    expected = (r.float() * weights.view(1, -1, 1, 1, 1)).sum(dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(_score(r, weights), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(_score(r.float(), weights), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not is_supported(), reason="this CPU has no instructions for 8-bit integers")
def test_integers_change_no_more_than_rounding_does() -> None:
    network, batch = load_network("lite", "cpu"), stereo(sources=1, side=96)
    texture = torch.rand(3, 24, 200, generator=torch.Generator().manual_seed(1)) * 2 - 1
    texture = torch.nn.functional.interpolate(texture[None], (96, 800), mode="bicubic", align_corners=False)
    batch.ref_image[:], batch.src_images[0, :] = texture[..., 100:196], texture[..., 108:204]  # a plane at 10.8
    batch.src_from_ref[..., :3, 3] = torch.tensor([-1.0, 0, 0])
    exact = run(network, batch)
    with int8_convolutions():
        rounded = run(network, batch)
    assert not rounded.equal(exact)
    assert (exact[0, 8:-8, 16:-8] / 10.8 - 1).abs().median() < 0.05
    assert (rounded / exact - 1).abs().median() < 0.01


def test_outputs_are_what_the_prediction_promises(network: LiteNetwork) -> None:
    with torch.inference_mode():
        out = network(stereo(side=80))
    for name in ("depth_initial", "depth", "refined_depth", "confidence", "sigma"):
        value = getattr(out, name)
        assert value.shape == (1, 80, 80) and torch.isfinite(value).all() and (value > 0).all(), name
    for normal in (out.normal, out.refined_normal):
        assert (normal.norm(dim=1) - 1).abs().max() < 1e-4
    assert (out.confidence <= 1).all()


def test_features_of_an_image_are_computed_once(network: LiteNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network._cache.known.clear()
    batch = stereo(seed=9)
    first = run(network, batch)
    counted: list[int] = []
    encode = network._encode
    monkeypatch.setattr(network, "_encode", lambda images: counted.append(len(images)) or encode(images))
    assert torch.equal(run(network, batch), first) and counted == []
    turned = replace(batch, ref_image=batch.src_images[:, 0], src_images=torch.stack([batch.ref_image] * 2, dim=1))
    run(network, turned)
    assert counted == []
    run(network, stereo(seed=10))
    assert counted == [1, 1, 1]
    for seed in range(11, 11 + CACHED_IMAGES):
        run(network, stereo(seed=seed))
    assert len(network._cache.known) == CACHED_IMAGES


def test_features_are_computed_once_for_threads_that_ask_at_the_same_time() -> None:
    cache, begun, go_on, counted = FeatureCache(), threading.Event(), threading.Event(), []

    def encode(images: torch.Tensor) -> Features:
        counted.append(len(images))
        begun.set()
        assert go_on.wait(60)
        return Features(*[images] * 5)

    image = torch.rand(1, 3, 16, 16)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, image, encode)
        assert begun.wait(60)
        second = pool.submit(cache.get, image, encode)
        go_on.set()
        assert first.result()[0] is second.result()[0] and counted == [1]


def test_features_that_could_not_be_computed_are_asked_for_again() -> None:
    cache, image = FeatureCache(), torch.rand(1, 3, 16, 16)

    def fail(images: torch.Tensor) -> Features:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.get(image, fail)
    assert cache.get(image, lambda images: Features(*[images] * 5))[0].half.equal(image)


def test_folding_the_normalisation_changes_nothing_but_rounding(network: LiteNetwork) -> None:
    import copy

    batch = stereo(seed=2)
    torch.manual_seed(1)
    unfolded = copy.deepcopy(network)
    for module in unfolded.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    before = run(unfolded, batch)
    folded = fold_normalization(copy.deepcopy(unfolded))
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d)]
    assert norms == []
    folded._cache.known.clear()
    assert (run(folded, batch) / before - 1).abs().median() < 1e-4


def test_refinement_starts_from_what_is_given(network: LiteNetwork) -> None:
    batch = stereo(seed=4)
    depth, facing = torch.full((1, 64, 64), 2.0), torch.tensor([0, 0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    depth[:, :, 40:] = 0
    still = LiteNetwork().eval()  # its steps move nothing yet
    still.load_state_dict(network.state_dict())
    with torch.no_grad():
        for layer in (still.consistency.out, still.sharpener.out):
            layer.weight.zero_()
        still.consistency.out.bias.copy_(torch.tensor([0, -20.0, -20.0, 0, 0, 0, 0]))
    with torch.inference_mode():
        refined, own = still.refine(batch, depth, facing).refined_depth, still(batch).refined_depth
    assert (refined[:, 4:-4, 4:32] - 2.0).abs().max() < 0.02
    assert (refined[:, :, 48:] / own[:, :, 48:] - 1).abs().median() < 0.02  # the weights of the upsampling change


def test_cost_stays_within_the_budget(network: LiteNetwork) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    batch = stereo()
    sides = (240, 320)
    wide = replace(batch, ref_image=torch.rand(1, 3, *sides) * 2 - 1, src_images=torch.rand(1, 2, 3, *sides) * 2 - 1)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        network(wide)
    assert counter.get_total_flops() <= 52e9
    assert sum(p.numel() for p in network.parameters()) <= 6_500_000
