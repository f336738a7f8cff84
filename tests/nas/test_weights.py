"""From a name to a checked network, and from published checkpoints to a name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nas.setups import drawn_network, random_batch, run
from nasrecon.errors import InputError, WeightsError
from nasrecon.nas import manifest, weights
from nasrecon.nas import published as published_import
from nasrecon.nas.manifest import WeightsEntry, weights_folders
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.published import import_published
from nasrecon.nas.weights import (
    list_weights,
    load_network,
    resolve_device,
    save_weights,
    verify_weights,
    weights_digest,
)


class TinyNetwork(nn.Module):
    """A network that loads at once; ``flavour`` changes its shapes."""

    name = "tiny"

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user folder, and "tiny" as a kind of network."""
    monkeypatch.setenv("NASRECON_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setitem(weights.NETWORKS, "tiny", (__name__, "TinyNetwork"))
    return tmp_path / "mine"


def save_tiny(folder: Path, name: str = "small", **entry: object) -> WeightsEntry:
    torch.manual_seed(0)
    return save_weights(TinyNetwork(), folder / f"{name}.safetensors", WeightsEntry(name=name, network="tiny", **entry))


def test_round_trip_by_name_and_by_path(folder: Path) -> None:
    torch.manual_seed(1)
    network = TinyNetwork(width=5)
    network.layers[1].running_var.uniform_(0.5, 2)
    facts = {"licence": "CC0", "trained": {"steps": 7}, "scores": {"a": 0.5}, "notes": "none", "options": {"width": 5}}
    entry = save_weights(network, folder / "file.safetensors", WeightsEntry(name="n.1", network="tiny", **facts))
    for name in ("n.1", folder / "file.safetensors", str(folder / "file.safetensors")):
        found = load_network(name, "cpu")
        assert not found.training and not any(p.requires_grad for p in found.parameters())
        for key, value in network.state_dict().items():
            assert torch.equal(found.state_dict()[key], value), key
    (listed,) = [e for e in list_weights() if e.name == "n.1"]
    assert listed == entry and {key: getattr(listed, key) for key in facts} == facts
    assert weights_digest("n.1") == entry.sha256 and entry.bytes == (folder / "file.safetensors").stat().st_size


def test_half_is_stored_small_and_loads_as_float32(folder: Path) -> None:
    network = drawn_network(planes=16)
    entries = [
        save_weights(network, folder / f"{n}.safetensors", {"name": n, "network": "paper"}, half=n == "half")
        for n in ("whole", "half")
    ]
    assert entries[1].bytes < 0.52 * entries[0].bytes
    stored, loaded = load_file(folder / "half.safetensors"), load_network("half", "cpu").state_dict()
    for key, value in network.state_dict().items():
        of_norm = (value.dim() == 1 and not key.endswith(("0.bias", "3.bias", "outc.conv.bias"))) or value.dim() == 0
        assert stored[key].dtype == (value.dtype if of_norm else torch.float16), key
        assert loaded[key].dtype == value.dtype
        torch.testing.assert_close(loaded[key], value, rtol=0 if of_norm else 2**-11, atol=0 if of_norm else 2**-24)


def test_papers_network_loads_with_its_options(folder: Path) -> None:
    network = drawn_network(planes=16, pool_slices=1, trained_min_depth=0.25)
    entry = save_weights(network, folder / "p.safetensors", WeightsEntry(name="p", network="paper"))
    assert entry.options == {"planes": 16, "pool_slices": 1, "trained_min_depth": 0.25}, "the network knows its options"
    batch = random_batch(1, 1, 64, 64)
    found, expected = run(load_network("p", "cpu"), batch), run(network, batch)
    torch.testing.assert_close(found.refined_depth, expected.refined_depth, rtol=1e-3, atol=1e-4)
    with pytest.raises(WeightsError, match="pool_slices"):
        entry = WeightsEntry(name="q", network="paper", options={"pool_slices": 3})
        save_weights(network, folder / "q.safetensors", entry)


def test_unknown_name_lists_the_known_ones(folder: Path) -> None:
    save_tiny(folder, "one")
    save_tiny(folder, "two")
    with pytest.raises(WeightsError, match=r"'three'.*one, two") as e:
        load_network("three", "cpu")
    assert str(folder) in str(e.value)


def test_missing_file(folder: Path) -> None:
    save_tiny(folder).path.unlink()
    for use in (load_network, weights_digest):
        with pytest.raises(WeightsError, match=r"small\.safetensors.*missing"):
            use("small")
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: no such"):
        load_network(folder / "nowhere.safetensors")


def test_damaged_file(folder: Path) -> None:
    entry = save_tiny(folder)
    content = bytearray(entry.path.read_bytes())
    content[-3] ^= 1
    entry.path.write_bytes(content)
    for name in ("small", entry.path):
        with pytest.raises(WeightsError, match=rf"sha256.*{entry.sha256}"):
            load_network(name, "cpu")
    assert {e.name: "sha256" in problem for e, problem in verify_weights() if e.folder == folder} == {"small": True}


def test_file_that_is_no_safetensors(folder: Path) -> None:
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(b"not at all")
    with pytest.raises(WeightsError, match=r"x\.safetensors: expected a safetensors"):
        load_network(folder / "x.safetensors", "cpu")
    save_file({"a": torch.zeros(1)}, folder / "y.safetensors")
    with pytest.raises(WeightsError, match=r"y\.safetensors.*which network"):
        load_network(folder / "y.safetensors", "cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("layers.0.bias"), r"1 missing: layers\.0\.bias"),
        (lambda t: t.update(more=torch.zeros(2)), r"1 unexpected: more"),
        (lambda t: t.update({"layers.0.bias": torch.zeros(4)}), r"of another shape: layers\.0\.bias \(4, expected 3\)"),
    ],
)
def test_tensors_must_fit(folder: Path, change: Callable[[dict], object], said: str) -> None:
    """Wrong tensors under a right sha256: the file's own manifest is rewritten to match."""
    entry = save_tiny(folder)
    tensors = load_file(entry.path)
    change(tensors)
    save_file(tensors, entry.path)
    rows = json.loads((folder / "manifest.json").read_text())
    rows["weights"][0]["sha256"] = manifest.sha256_of(entry.path)
    (folder / "manifest.json").write_text(json.dumps(rows))
    with pytest.raises(WeightsError, match=said):
        load_network("small", "cpu")
    assert any(e.name == "small" and "does not fit TinyNetwork" in problem for e, problem in verify_weights())


def test_options_must_fit_when_saving_and_loading(folder: Path) -> None:
    with pytest.raises(WeightsError, match="another shape"):
        save_tiny(folder, options={"width": 4})
    with pytest.raises(WeightsError, match="does not take the options"):
        save_tiny(folder, options={"depth": 4})
    with pytest.raises(WeightsError, match="no network is called 'huge'; there are lite, lite2, paper"):
        save_weights(TinyNetwork(), folder / "x.safetensors", WeightsEntry(name="x", network="huge"))
    assert not folder.exists(), "nothing is written on an error"


def test_values_must_be_finite(folder: Path) -> None:
    network = TinyNetwork()
    network.layers[0].bias.data[1] = 1e6
    entry = WeightsEntry(name="x", network="tiny")
    save_weights(network, folder / "x.safetensors", entry)
    with pytest.raises(WeightsError, match=r"layers\.0\.bias.*float16"):
        save_weights(network, folder / "y.safetensors", WeightsEntry(name="y", network="tiny"), half=True)
    network.layers[0].bias.data[1] = float("nan")
    with pytest.raises(WeightsError, match=r"layers\.0\.bias"):
        save_weights(network, folder / "x.safetensors", entry)
    assert load_network("x", "cpu").layers[0].bias[1] == 1e6, "the old file stays"


def test_saving_again_replaces_and_keeps_the_others(folder: Path) -> None:
    save_tiny(folder, "b")
    save_tiny(folder, "a", notes="old")
    save_tiny(folder, "a", notes="new")
    found = [(e.name, e.notes) for e in list_weights() if e.folder == folder]
    assert found == [("a", "new"), ("b", "")]
    assert sorted(os.listdir(folder)) == ["a.safetensors", "b.safetensors", "manifest.json"], "no leftovers"
    with pytest.raises(WeightsError, match="file of the weights 'a'"):
        save_weights(TinyNetwork(), folder / "a.safetensors", WeightsEntry(name="c", network="tiny"))


def test_a_file_alone_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    entry = WeightsEntry(name="t", network="tiny", options={"width": 4})
    entry = save_weights(TinyNetwork(4), folder / "t.safetensors", entry)
    moved = entry.path.rename(tmp_path / "moved.safetensors")
    assert load_network(moved, "cpu").layers[0].out_channels == 4
    assert weights_digest(moved) == entry.sha256


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"weights": {}}',
        '{"weights": [{"name": "a"}]}',
        '{"weights": [{"name": "a", "network": "tiny", "colour": 1}]}',
        '{"weights": [{"name": "a", "network": "tiny", "file": 3}]}',
        '{"weights": [{"name": "a", "network": "tiny", "file": "../a.safetensors"}]}',
        '{"weights": [{"name": "a/b", "network": "tiny", "file": "a.safetensors"}]}',
    ],
)
def test_broken_manifest_is_named(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=r"mine/manifest\.json"):
        load_network("a")


def test_one_name_in_two_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    monkeypatch.setattr(manifest, "weights_folders", lambda: [folder, other])
    save_tiny(folder)
    save_weights(TinyNetwork(), other / "small.safetensors", WeightsEntry(name="small", network="tiny"))  # other values
    with pytest.raises(WeightsError, match="two different"):
        load_network("small")
    load_network(other / "small.safetensors", "cpu")


def test_shipped_folder_is_found_and_sound() -> None:
    """In a checkout two levels above the package, in an installation inside it; all that is shipped loads."""
    shipped = weights_folders()[0]
    assert shipped.name == "weights" and shipped.parent in Path(manifest.__file__).parents
    assert [problem for _, problem in verify_weights() if problem] == []


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(InputError, match="found 0 CUDA devices"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto").type == "cuda" and resolve_device("cuda:0").index == 0
    with pytest.raises(InputError, match=r"'cuda:1'.*found 1"):
        resolve_device("cuda:1")
    for wrong in ("gpu", "mps", "meta", ""):
        with pytest.raises(InputError, match="expected auto, cpu, cuda"):
            resolve_device(wrong)


# ---- published checkpoints -------------------------------------------------------------------------------------------


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
