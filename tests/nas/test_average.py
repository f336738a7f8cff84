"""The average of two weights files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nasrecon import cli
from nasrecon.errors import InputError
from nasrecon.nas.average import average_weights
from nasrecon.nas.weights import build_network, load_network, save_weights

MEAN, VARIANCE = "hourglass.enter.1.running_mean", "hourglass.enter.1.running_var"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own weights with a file "first", whose variances are 1, and one "second": 4."""
    monkeypatch.setenv("NASRECON_WEIGHTS", str(tmp_path))
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        network = build_network("lite", {})
        state = network.state_dict()
        for key in state:
            if key.endswith("running_mean"):
                state[key].fill_(float(seed))
            elif key.endswith("running_var"):
                state[key].fill_(4.0**seed)
        save_weights(network, tmp_path / f"{name}.safetensors", {"name": name, "network": "lite", "licence": "x"})
    return tmp_path


def _state(name: str) -> dict[str, torch.Tensor]:
    network = load_network(name, "cpu", fold=False)
    assert isinstance(network, torch.nn.Module)
    return network.state_dict()


def test_tensors_are_averaged_and_statistics_by_part(folder: Path) -> None:
    part, kept = MEAN.split(".")[0], "features"
    entry = average_weights("first", folder / "second.safetensors", "both", share=0.25, statistics={part: -0.5})
    first, second, both = _state("first"), _state("second"), _state("both")
    for key, value in both.items():
        if key.startswith(part) and key.endswith(("running_mean", "running_var")):
            expected = torch.full_like(value, -0.5 if key.endswith("mean") else 0.5)  # 4 ** -.5
        elif key.endswith("running_var"):
            expected = torch.full_like(value, 4**0.25)
        elif value.is_floating_point():
            expected = 0.75 * first[key] + 0.25 * second[key]
        else:
            expected = first[key]
        assert torch.allclose(value.float(), expected.float(), atol=2e-3), key
    assert any(key.startswith(kept) and key.endswith("running_var") for key in both)
    assert entry.licence == "x" and len(entry.trained["average_of"]) == 2 and entry.trained["share"] == 0.25


def test_a_part_has_a_share_of_its_own(folder: Path) -> None:
    average_weights("first", "second", "both", share=0.0, parts={"consistency": 1.0}, statistics={"consistency": 0.0})
    first, second, both = _state("first"), _state("second"), _state("both")
    for key, value in both.items():
        taken = key.startswith("consistency.") and not key.endswith(("running_mean", "running_var"))
        expected = (second if taken else first)[key]
        assert torch.allclose(value.float(), expected.float(), atol=1e-3), key


def test_the_command_writes_weights_that_load(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["weights", "average", "first", "second", "--name", "m", "--share", "0", "--spread-factor", "0.4", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--statistics", "features=1"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["path"] == str(folder / "m.safetensors")
    made = _state("m")
    assert float(made["spread_factor"]) == pytest.approx(0.4, abs=1e-3)
    assert made[VARIANCE].unique().tolist() == [1.0] and made[MEAN].unique().tolist() == [0.0]


@pytest.mark.parametrize(
    ("changed", "stated"),
    [
        ({"share": 1.5}, "share of all: expected 0"),
        ({"parts": {"consistency": -0.1}}, "share of consistency: expected 0"),
        ({"parts": {"windows": 0.5}}, "expected one of .*consistency"),
        ({"statistics": {"windows": 0.5}}, "expected one of .*hourglass"),
        ({"second": "paper"}, "holds paper"),
        ({"second": "paper", "first": "paper", "spread_factor": 1.0}, "no factor"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, changed: dict, stated: str) -> None:
    save_weights(build_network("paper", {}), folder / "paper.safetensors", {"name": "paper", "network": "paper"})
    with pytest.raises(InputError, match=stated):
        average_weights(**({"first": "first", "second": "second", "name": "bad"} | changed))
    assert not (folder / "bad.safetensors").exists()


def test_a_share_that_is_no_number_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["weights", "average", "first", "second", "--name", "m", "--statistics", "features"])
    assert end.value.code == 2
    assert "PART=SHARE" in capsys.readouterr().err
