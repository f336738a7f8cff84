"""The import of published checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nas.setups import drawn_network, random_batch, save_tiny
from nasrecon.errors import InputError, WeightsError
from nasrecon.nas import published as published_import
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.published import import_published
from nasrecon.nas.weights import load_network

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, torch.Tensor]]:
    """State dicts as published; the fixture's rule leaves the step counts at 0, so they say nothing of the variant."""
    network = drawn_network("published:")
    return {part: dict(getattr(network, part).state_dict()) for part in ("mvdnet", "consistency")}


def write_pair(folder: Path, mvdnet: dict, consistency: dict) -> tuple[Path, Path]:
    """Write the two files in the two forms in which they occur: wrapped with ``module.``, and bare."""
    folder.mkdir(exist_ok=True)
    first, second = folder / "mvdnet.pth.tar", folder / "cons.pth.tar"
    torch.save({"epoch": 12, "state_dict": {f"module.{key}": value for key, value in mvdnet.items()}}, first)
    torch.save(consistency, second)
    return first, second


def test_import_uses_every_tensor(tmp_path: Path, published: dict) -> None:
    pair = write_pair(tmp_path, **published)
    entry = import_published(*pair, "nas", variant="pool1", trained_min_depth=0.25)
    assert entry.network == "paper" and entry.options == {"planes": 64, "pool_slices": 1, "trained_min_depth": 0.25}
    assert len(load_file(entry.path)) == 472 + 128
    network = load_network("nas", "cpu")
    assert isinstance(network, PaperNetwork) and network.trained_min_depth == 0.25 and network.mvdnet.pool_slices == 1
    for part, tensors in published.items():
        for key, value in tensors.items():
            assert torch.equal(getattr(network, part).state_dict()[key], value), key


def with_steps(mvdnet: dict, steps: tuple[int, int, int]) -> dict:
    """Set the step counts of the pooling layers; a layer of no step has the statistics that it started with."""
    out = dict(mvdnet)
    for i, count in enumerate(steps, start=1):
        out[f"pool{i}.0.1.num_batches_tracked"] = torch.tensor(count)
        if not count:
            out[f"pool{i}.0.1.running_mean"], out[f"pool{i}.0.1.running_var"] = torch.zeros(32), torch.ones(32)
    return out


@pytest.mark.parametrize(
    ("steps", "pool_slices"), [((50, 50, 50), 3), ((50, 0, 0), 1), ((50, 20, 20), None), ((0, 0, 0), None)]
)
def test_variant_is_told_or_asked_for(
    tmp_path: Path, published: dict, steps: tuple[int, int, int], pool_slices: int | None
) -> None:
    pair = write_pair(tmp_path, with_steps(published["mvdnet"], steps), published["consistency"])
    if pool_slices is None:
        with pytest.raises(WeightsError, match=r"--variant pool3 .* or --variant pool1"):
            import_published(*pair, "nas", trained_min_depth=0.5)
    else:
        assert import_published(*pair, "nas", trained_min_depth=0.5).options["pool_slices"] == pool_slices


def test_variant_is_told_by_untouched_statistics(tmp_path: Path, published: dict) -> None:
    """Where nothing was counted, statistics that never moved still tell; ones that moved (the fixture's own) do not."""
    mvdnet = with_steps(published["mvdnet"], (1, 0, 0)) | {"pool1.0.1.num_batches_tracked": torch.tensor(0)}
    assert published_import.used_poolings(mvdnet) == 1
    assert published_import.used_poolings(published["mvdnet"]) is None


def test_real_training_leaves_these_traces() -> None:
    """A training step of each variant, through the network itself, is told from the tensors."""
    for pool_slices in (1, 3):
        torch.manual_seed(0)
        network = PaperNetwork(planes=16, pool_slices=pool_slices).train()
        assert published_import.used_poolings(network.mvdnet.state_dict()) is None
        with torch.no_grad():
            network.mvdnet(random_batch(2, 1, 64, 64))
        assert published_import.used_poolings(network.mvdnet.state_dict()) == pool_slices


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("mvdnet", lambda t: t.pop("convs.3.0.weight"), r"mvdnet\.pth\.tar.*1 missing: convs\.3\.0\.weight"),
        ("consistency", lambda t: t.update(extra=torch.zeros(1)), r"cons\.pth\.tar.*1 unexpected: extra"),
        ("mvdnet", lambda t: t.update({"classify.2.weight": torch.zeros(1, 32, 3, 3)}), "1 of another shape"),
    ],
)
def test_import_is_strict(
    tmp_path: Path, folder: Path, published: dict, part: str, change: Callable[[dict], object], said: str
) -> None:
    parts = {key: dict(value) for key, value in published.items()}
    change(parts[part])
    with pytest.raises(WeightsError, match=said):
        import_published(*write_pair(tmp_path, **parts), "nas", variant="pool3", trained_min_depth=0.5)
    assert not folder.exists()


def test_import_refuses_what_is_no_checkpoint(tmp_path: Path, published: dict) -> None:
    first, second = write_pair(tmp_path, **published)
    with pytest.raises(WeightsError, match="swapped"):
        import_published(second, first, "nas", variant="pool3", trained_min_depth=0.5)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        import_published(tmp_path / "none", second, "nas", variant="pool3", trained_min_depth=0.5)
    text, harmful = tmp_path / "text.pth.tar", tmp_path / "harmful.pth.tar"
    text.write_text("hello")
    torch.save({"state_dict": {}, "call": os.getcwd}, harmful)
    for path in (text, harmful):
        with pytest.raises(WeightsError, match=f"{path.name}: expected a checkpoint of tensors"):
            import_published(path, second, "nas", variant="pool3", trained_min_depth=0.5)
    torch.save({"state_dict": {}}, text)
    with pytest.raises(WeightsError, match="expected a dict with `state_dict`"):
        import_published(text, second, "nas", variant="pool3", trained_min_depth=0.5)
    with pytest.raises(InputError, match="trained_min_depth"):
        import_published(first, second, "nas", variant="pool3", trained_min_depth=0)
    with pytest.raises(InputError, match="variant"):
        import_published(first, second, "nas", variant="pool2", trained_min_depth=0.5)


def test_import_does_not_take_a_shipped_name(
    tmp_path: Path, published: dict, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "shipped", "lite")
    monkeypatch.setattr(published_import, "weights_folders", lambda: [tmp_path / "shipped"])
    with pytest.raises(WeightsError, match="'lite' is taken"):
        import_published(*write_pair(tmp_path, **published), "lite", variant="pool3", trained_min_depth=0.5)
