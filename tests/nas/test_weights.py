"""From a name to a checked network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.setups import TinyNetwork, drawn_network, random_batch, run, save_tiny
from nasrecon.errors import InputError, WeightsError
from nasrecon.nas import manifest
from nasrecon.nas.manifest import WeightsEntry, weights_folders
from nasrecon.nas.weights import (
    list_weights,
    load_network,
    resolve_device,
    save_weights,
    verify_weights,
    weights_digest,
)

pytestmark = pytest.mark.usefixtures("folder")


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
    with pytest.raises(WeightsError, match="no network is called 'huge'; there are lite, paper"):
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
