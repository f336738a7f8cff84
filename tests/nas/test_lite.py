"""Laws of the house network: its plane geometry is exact, and it knows no unit, no order of sources, no batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nasrecon.nas.lite import LiteNetwork
from nasrecon.nas.network import StereoBatch
from nasrecon.nas.pyramid import agreed
from nasrecon.nas.resize import shrink_batch
from nasrecon.nas.surface import label_slopes, normal_from_slopes, slopes_from_normal, unit, upsample_planes
from nasrecon.nas.volume import pixel_rays, scaled_K


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    torch.manual_seed(3)
    network = LiteNetwork().eval()
    with torch.no_grad():  # wake the layers that start at or near zero
        network.consistency.out.weight.normal_(std=0.05)
        network.hourglass.from_belief.weight.normal_(std=0.1)
        network.consistency.from_hint.weight.normal_(std=0.05)
        network.trust.fill_(1.0)
    return network


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


def plane() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Label (1, 30, 40), normal (1, 3, 30, 40) and K of a slanted plane at coarse resolution."""
    K = torch.tensor([[[50.0, 0, 20.3], [0, 52, 14.1], [0, 0, 1]]])
    normal = F.normalize(torch.tensor([0.3, -0.4, -0.8]), dim=0).view(1, 3, 1, 1).expand(1, 3, 30, 40)
    label = -(normal * pixel_rays(K, 30, 40).view(1, 3, 30, 40)).sum(dim=1) * 25
    return label, normal, K


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_depth_slopes_and_normals_of_a_plane_agree(dtype: torch.dtype | None) -> None:
    label, normal, K = plane()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        slopes = label_slopes(label)
        found = normal_from_slopes(label, slopes, K)
        asked = slopes_from_normal(label, normal, K)
    inner = (..., slice(1, -1), slice(1, -1))  # Sobel's window leaves the image at the border
    assert (found - normal)[inner].abs().max() < 1e-4  # float32 rounding; bfloat16 would be off by 1e-2
    assert (asked - slopes)[inner].abs().max() < 1e-4


def test_upsampling_is_exact_on_a_plane_for_any_mask() -> None:
    label, normal, K = plane()
    full_K = scaled_K(K, 0.25, corner_aligned=False)
    truth = -(normal[:, :, :1, :1] * pixel_rays(full_K, 120, 160).view(1, 3, 120, 160)).sum(dim=1) * 25
    mask = torch.randn(1, 144, 30, 40, generator=torch.Generator().manual_seed(1)) * 3
    fine, fine_normal = upsample_planes(label, slopes_from_normal(label, normal, K), normal, mask)
    assert (fine - truth).abs().max() < 1e-4  # labels are up to 40: rounding
    assert (fine_normal - normal[:, :, :1, :1]).abs().max() < 1e-5


def test_depth_scales_with_the_scene_and_normals_stay(network: LiteNetwork) -> None:
    batch = stereo()
    bigger = batch.src_from_ref.clone()
    bigger[..., :3, 3] *= 1000
    with torch.inference_mode():
        one = network(batch)
        other = network(replace(batch, src_from_ref=bigger, min_depth=batch.min_depth * 1000))
    assert torch.allclose(other.refined_depth, one.refined_depth * 1000, rtol=2e-3)  # rounding moves samples a little
    assert torch.allclose(other.sigma, one.sigma * 1000, rtol=2e-2)
    assert (other.refined_normal - one.refined_normal).abs().max() < 5e-3


def test_order_of_sources_does_not_matter_and_a_source_does(network: LiteNetwork) -> None:
    batch = stereo(sources=3)
    order = [2, 0, 1]
    with torch.inference_mode():
        one = network(batch).refined_depth
        other = network(
            replace(batch, src_images=batch.src_images[:, order], src_K=batch.src_K[:, order], src_from_ref=batch.src_from_ref[:, order])
        ).refined_depth  # fmt: skip
        fewer = network(
            replace(batch, src_images=batch.src_images[:, :1], src_K=batch.src_K[:, :1], src_from_ref=batch.src_from_ref[:, :1])
        ).refined_depth  # fmt: skip
    assert torch.allclose(one, other, rtol=2e-3)
    assert not torch.allclose(one, fewer, rtol=2e-3)


def test_a_batch_equals_its_items(network: LiteNetwork) -> None:
    batch = stereo(batch=2, seed=5)
    items = [batch.item(i) for i in (0, 1)]
    with torch.inference_mode():
        together = network(batch)
        alone = [network(item) for item in items]
    for i in (0, 1):
        assert torch.allclose(together.refined_depth[i], alone[i].refined_depth[0], rtol=2e-3)
        assert torch.allclose(together.confidence[i], alone[i].confidence[0], atol=2e-3)


def test_inference_a_few_planes_at_a_time_equals_training_s_whole_sweep(network: LiteNetwork) -> None:
    batch = stereo(seed=6)
    with torch.inference_mode():
        parts = network(batch)
    with torch.enable_grad():
        whole = network(batch)
    assert torch.allclose(parts.refined_depth, whole.refined_depth.detach(), rtol=1e-4)


def test_outputs_are_what_the_prediction_promises(network: LiteNetwork) -> None:
    with torch.inference_mode():
        out = network(stereo(side=80))
    for name in ("depth_initial", "depth", "refined_depth", "confidence", "sigma"):
        value = getattr(out, name)
        assert value.shape == (1, 80, 80) and torch.isfinite(value).all() and (value > 0).all(), name
    for normal in (out.normal, out.refined_normal):
        assert (normal.norm(dim=1) - 1).abs().max() < 1e-4
    assert (out.confidence <= 1).all()


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


def test_a_hint_stands_where_the_coarse_pass_saw_it(network: LiteNetwork) -> None:
    """The slanted plane, seen at half the size, becomes a hint whose labels are those of the plane at the full size."""
    label, normal, K = plane()
    planes = torch.arange(64.0).view(1, -1, 1, 1)
    coarse = {
        "cost2": -(planes - label[:, None]).abs() * 5, "step_labels": [label], "step_normals": [normal],
        "log_spread": torch.full_like(label, -3.0),
    }  # fmt: skip
    hint = network.hint_from(coarse, (60, 80), sources=1)
    assert torch.allclose(network.hint_from(coarse, (60, 80), sources=4).belief, hint.belief / 4)
    fine_K = scaled_K(K, 0.5, corner_aligned=False)
    truth = -(normal[:, :, :1, :1] * pixel_rays(fine_K, 60, 80).view(1, 3, 60, 80)).sum(dim=1) * 25
    inner = (..., slice(2, -2), slice(2, -2))
    assert (hint.label - truth)[inner].abs().max() < 1e-3
    assert (hint.normal - normal[:, :, :1, :1]).abs().max() < 1e-5
    for belief in hint.belief.unbind(1):
        assert (belief.argmax(1) - truth)[inner].abs().max() <= 1.0
        assert belief.abs().max() <= 0.5
    cut = hint.cut(20, 30, 16, 24)
    assert torch.equal(cut.label, hint.label[:, 20:36, 30:54]) and cut.belief.shape == (1, 2, 64, 16, 24)


@pytest.mark.parametrize(("sources", "rough"), [(1, False), (2, True)])
def test_unsure_views_are_seen_at_two_sizes_and_answered_at_their_own(
    network: LiteNetwork, sources: int, rough: bool
) -> None:
    views = replace(stereo(sources=sources, side=704), poses_exact=not rough)
    with torch.inference_mode():
        found = network(views)
        sized = [shrink_batch(views, side / 704, 16) for side in (416, 640)]
        said = agreed([look for batch in sized for look in network.looks(batch)])
        small = network(shrink_batch(views, 256 / 704, 16)).refined_depth
        alone = network.stages(shrink_batch(views, 256 / 704, 16))["refined_label"]
    full = lambda x: torch.nn.functional.interpolate(x, (704, 704), mode="bilinear")  # noqa: E731
    torch.testing.assert_close(found.refined_depth, 0.7 * 64 / full(said["refined_label"])[:, 0])
    # A fifth of the refined normals is the volume's.
    of_volume, refined = unit(full(said["normal"])), unit(full(said["refined_normal"]))
    torch.testing.assert_close(found.refined_normal, unit(0.8 * refined + 0.2 * of_volume))
    torch.testing.assert_close(small, 0.7 * 64 / alone)
    assert (found.refined_normal.norm(dim=1) - 1).abs().max() < 1e-4 and found.sigma.shape == (1, 704, 704)


def test_large_images_get_a_hint_and_use_it(network: LiteNetwork) -> None:
    small, large = stereo(sources=1, side=400), stereo(sources=1, side=416)
    with torch.inference_mode():
        assert len(network.looks(small)) == 1
        coarse, fine = network.looks(large)
        assert coarse["label"].shape == (1, 52, 52) and fine["label"].shape == (1, 104, 104)
        alone = network.stages(large)
    assert not torch.allclose(fine["refined_label"], alone["refined_label"], rtol=1e-2)


def test_looks_count_as_they_are_sure(network: LiteNetwork) -> None:
    def look(side: int, label: float, spread: float, normal: tuple[float, float, float]) -> dict[str, torch.Tensor]:
        coarse = torch.full((1, side // 4, side // 4), label)
        facing = torch.tensor(normal).view(1, 3, 1, 1)
        return {
            "label_initial": coarse + 2, "label": coarse + 1, "refined_label": torch.full((1, side, side), label),
            "normal": facing.expand(1, 3, side // 4, side // 4), "refined_normal": facing.expand(1, 3, side, side),
            "log_spread": torch.full_like(coarse, math.log(spread)),
        }  # fmt: skip

    said = agreed([look(16, 10.0, 0.1, (0, 0, -1)), look(32, 20.0, 0.2, (0, -1, 0))])
    for name, more in (("label_initial", 2), ("label", 1), ("refined_label", 0)):
        torch.testing.assert_close(said[name], torch.full((1, 1, 32, 32), 0.8 * 10 + 0.2 * 20 + more))
    torch.testing.assert_close(said["spread"], torch.full((1, 1, 32, 32), 0.8 * 0.1 + 0.2 * 0.2))
    for name in ("normal", "refined_normal"):
        torch.testing.assert_close(said[name][0, :, 7, 9], torch.tensor([0, -0.2, -0.8]))


def test_of_more_sources_only_the_finest_look_counts(network: LiteNetwork) -> None:
    batch = stereo(sources=2, side=416)
    with torch.inference_mode():
        fine, depth = network.looks(batch)[-1], network(batch).refined_depth
    torch.testing.assert_close(depth, 0.7 * 64 / fine["refined_label"])


def test_cost_stays_within_the_budget(network: LiteNetwork) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    g = torch.Generator().manual_seed(0)
    wide = replace(
        stereo(),
        ref_image=torch.rand(1, 3, 240, 320, generator=g),
        src_images=torch.rand(1, 2, 3, 240, 320, generator=g),
    )
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(wide)
    assert counter.get_total_flops() <= 40e9
    assert sum(p.numel() for p in network.parameters()) <= 2_000_000
