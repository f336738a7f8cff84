"""Networks with drawn parameters, one that loads at once, batches with known geometry, the golden fixtures."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nasrecon.nas.manifest import WeightsEntry
from nasrecon.nas.network import Prediction, StereoBatch
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.weights import save_weights

FIXTURES = Path(__file__).resolve().parents[2] / "../shared/fixtures"


def draw_parameter(key: str, shape: tuple[int, ...], salt: str) -> torch.Tensor:
    """Draw one tensor by the rule of the golden fixtures (design/nas-network.md, section 9)."""
    draw = np.random.RandomState(zlib.crc32((salt + key).encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        value = 0.1 * draw.standard_normal(shape)
    elif key.endswith("running_var"):
        value = 0.5 + draw.uniform(size=shape)
    elif len(shape) == 1 and key.endswith("weight"):
        value = 0.8 + 0.4 * draw.uniform(size=shape)
    elif key.endswith("bias"):
        value = 0.1 * draw.standard_normal(shape)
    else:
        factor = {"classify.2.weight": 0.12, "convs.6.0.weight": 40.0}.get(key, 1.0)
        value = draw.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:])) * factor
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def drawn_network(salt: str = "law:", **options: object) -> PaperNetwork:
    """Return the paper's network in eval mode under drawn parameters: maps vary (fresh ones give flat scores)."""
    network = PaperNetwork(**options).eval()
    for part in (network.mvdnet, network.consistency):
        part.load_state_dict({k: draw_parameter(k, tuple(v.shape), salt) for k, v in part.state_dict().items()})
    return network


def golden(which: str) -> tuple[dict[str, np.ndarray], PaperNetwork, StereoBatch]:
    """Return a golden fixture with the network and the batch that it belongs to; skip where the fixtures are absent."""
    path = FIXTURES / f"nas_golden_{which}.npz"
    if not path.is_file():
        pytest.skip(f"needs the golden outputs of the published networks ({path.name} in ../shared/fixtures)")
    with np.load(path) as stored:
        data = dict(stored)
    network = drawn_network(
        str(data["salt"]),
        planes=int(data["nlabel"]),
        pool_slices=1 if data["no_pool"] else 3,
        trained_min_depth=float(data["mindepth"]),
    )
    S = len(data["sources"])
    K = torch.from_numpy(data["intrinsics"])[None]
    src_from_ref = torch.eye(4).repeat(1, S, 1, 1)
    src_from_ref[0, :, :3] = torch.from_numpy(data["src_from_ref"])
    batch = StereoBatch(
        ref_image=torch.from_numpy(data["ref"]),
        src_images=torch.from_numpy(data["sources"])[None],
        ref_K=K,
        src_K=K[:, None].repeat(1, S, 1, 1),
        src_from_ref=src_from_ref,
        min_depth=torch.tensor([float(data["mindepth"])]),
    )
    return data, network, batch


def official_keys() -> dict[str, dict[str, list[int]]]:
    """Return key -> shape of both published checkpoints; skips where the list is absent."""
    path = FIXTURES / "nas_official_keys.json"
    if not path.is_file():
        pytest.skip(f"needs the list of published tensors ({path.name} in ../shared/fixtures)")
    return json.loads(path.read_text())


def random_batch(B: int, S: int, H: int, W: int, seed: int = 0) -> StereoBatch:
    """Return smooth random images under small random motions; each view has its own K, each item its own scale."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(B * (S + 1), 3, 8, 8, generator=g)
    images = torch.tanh(torch.nn.functional.interpolate(coarse, (H, W), mode="bicubic")).unflatten(0, (B, S + 1))
    focal = W * (0.8 + 0.3 * torch.rand(B, S + 1, 2, generator=g))
    K = torch.zeros(B, S + 1, 3, 3)
    K[..., 0, 0], K[..., 1, 1], K[..., 2, 2] = focal[..., 0], focal[..., 1], 1
    K[..., :2, 2] = torch.tensor([W / 2 - 0.37, H / 2 + 0.21]) + torch.randn(B, S + 1, 2, generator=g)
    angle = 0.04 * torch.randn(B, S, 3, generator=g)
    min_depth = 0.3 + torch.rand(B, generator=g)
    src_from_ref = torch.eye(4).repeat(B, S, 1, 1)
    src_from_ref[..., :3, :3] = rotation(angle)
    src_from_ref[..., :3, 3] = 0.15 * min_depth[:, None, None] * torch.randn(B, S, 3, generator=g)
    return StereoBatch(
        ref_image=images[:, 0],
        src_images=images[:, 1:],
        ref_K=K[:, 0],
        src_K=K[:, 1:],
        src_from_ref=src_from_ref,
        min_depth=min_depth,
    )


def rotation(vector: torch.Tensor) -> torch.Tensor:
    """Return the rotations (..., 3, 3) about axes (..., 3) by their length [rad]."""
    x, y, z = vector.double().unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross).to(vector.dtype)


def run(network: torch.nn.Module, batch: StereoBatch) -> Prediction:
    """Run a network without gradients."""
    with torch.inference_mode():
        return network(batch)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest |difference| of depths over max(|expected|, 0.05)."""
    expected = expected.reshape(found.shape)
    return float(((found - expected).abs() / expected.abs().clamp_min(0.05)).max())


def angle_deg(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the angles [degrees] between unit vectors along dimension 1; accurate where they are small."""
    half_chord = (found.double() - expected.double()).norm(dim=1) / 2
    return torch.rad2deg(2 * torch.asin(half_chord.clamp(max=1)))


class TinyNetwork(nn.Module):
    """A network that loads at once; ``width`` changes its shapes."""

    name = "tiny"

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width))


def save_tiny(folder: Path, name: str = "small", **entry: object) -> WeightsEntry:
    torch.manual_seed(0)
    return save_weights(TinyNetwork(), folder / f"{name}.safetensors", WeightsEntry(name=name, network="tiny", **entry))
