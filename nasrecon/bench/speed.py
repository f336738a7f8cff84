"""How fast the networks are on this machine, and how near to what it can do at all.

The ceiling is measured in the same run: a product of matrices and a convolution in the precision of the network. FLOP
are those of convolutions and matrix products (torch's counter, a multiplication and an addition are 2); sampling,
interpolation and sums are not counted.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasrecon.errors import InputError, WeightsError
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import estimate_to_folder
from nasrecon.machine import release_freed_memory
from nasrecon.nas.convolution import convolve, flop_formulas
from nasrecon.nas.int8 import in_use, int8_convolutions, is_supported
from nasrecon.nas.network import Network, StereoBatch
from nasrecon.nas.precision import autocast
from nasrecon.nas.weights import build_network, load_network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.progress import Progress, Quiet, under_way
from nasrecon.types import Camera, ImageSource, Scene, View

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ON_CPU, ON_GPU = ("lite", "zncc"), ("lite", "paper", "zncc")
REPEATS, ENOUGH_S = 5, 3.0
"""A network runs this often, or until it has run for so long; the median counts."""
RUNS = 3
"""A case takes the time of so many runs at least: to count and to warm up, to measure, and through the pipeline."""


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """What is measured.

    Attributes:
        networks: names of weights, or kinds of network, which then have random weights; (): those of the device.
        sizes: (width, height) [px], multiples of 32.
        sources: numbers of source views.
        seconds: no case begins that would end after so long, by the speed of those before it.

    Raises:
        InputError: if a size or a number is out of its range.
    """

    networks: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ((320, 256), (640, 480))
    sources: tuple[int, ...] = (2, 4)
    seconds: float = 120.0

    def __post_init__(self) -> None:
        if any(side < 64 or side % 32 for size in self.sizes for side in size):
            raise InputError(f"sides must be multiples of 32 and at least 64 px, found {self.sizes}")
        if min(self.sources, default=0) < 1:
            raise InputError(f"sources must be at least 1, found {self.sources}")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of one network at one size.

    Attributes:
        network, width, height, sources, precision: the case.
        seconds: of the network alone, a view; median.
        pipeline_seconds: a view, with reading, writing and previews; None where no time was left for it.
        gflop: a view. share: of the machine's ceiling in this precision.
        peak_bytes: memory used beyond what was used before the network ran; None where the system does not say.
    """

    network: str
    width: int
    height: int
    sources: int
    precision: str
    seconds: float
    pipeline_seconds: float | None
    gflop: float
    share: float
    peak_bytes: int | None


def measure(
    options: SpeedOptions, device: torch.device, progress: Progress
) -> tuple[dict[str, dict[str, float]], list[Speed]]:
    """Return the ceiling, precision -> {"matmul", "convolution"} -> GFLOP/s, and the speed of each case.

    Cases that do not fit into ``options.seconds`` are left out and reported; the first of each network is measured.
    """
    since, rows = time.perf_counter(), []
    with under_way(progress, "measure"):
        ceilings = {name: ceiling(device, dtype) for name, dtype in PRECISIONS.items()}
        if device.type == "cpu" and is_supported():
            ceilings["int8"] = {"convolution": int8_ceiling()}
    for name in options.networks or (ON_GPU if device.type == "cuda" else ON_CPU):
        network, last = _network(name, device), None
        for width, height in options.sizes:
            for sources in options.sources:
                label = f"{name} at {width}x{height} with {sources} sources"
                needed = 0.0 if last is None else RUNS * _scaled(last, width, height, sources)
                left = options.seconds - (time.perf_counter() - since)
                if last is not None and needed > left:
                    progress.skipped(label, f"it would take about {needed:.0f} s, {max(0, left):.0f} s are left")
                    continue
                progress.note(f"{label} ...")
                with under_way(progress, "measure"):
                    last = _measured(network, name, sources, width, height, device, ceilings, since + options.seconds)
                rows.append(last)
    return ceilings, rows


def _scaled(last: Speed, width: int, height: int, sources: int) -> float:
    """Return the seconds that a network may take at another size, from those of a case before."""
    return last.seconds * (width * height) / (last.width * last.height) * (1 + sources) / (1 + last.sources)


def ceiling(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Return the GFLOP/s of a product of matrices and of a 3x3 convolution of 64 channels."""
    side, (h, w) = (8192, (480, 640)) if device.type == "cuda" else (1024, (120, 160))
    a = torch.randn(side, side, device=device).to(dtype)
    x = torch.randn(1, 64, h, w, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(64, 64, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    flop = {"matmul": 2.0 * side**3, "convolution": 2.0 * 64 * 64 * 9 * h * w}
    runs: dict[str, Callable[[], Any]] = {
        "matmul": lambda: a @ a,
        "convolution": lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
    }
    with torch.inference_mode():
        return {name: flop[name] / 1e9 / min(timed(run, device)) for name, run in runs.items()}


def int8_ceiling() -> float:
    """Return the GFLOP/s of a 3x3 convolution of 64 channels in 8-bit integers, the rounding of its input included."""
    layer, (h, w) = torch.nn.Conv2d(64, 64, 3, 1, 1, bias=False), (120, 160)
    x = torch.rand(1, 64, h, w).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), int8_convolutions():
        return 2.0 * 64 * 64 * 9 * h * w / 1e9 / min(timed(lambda: convolve(layer, x), torch.device("cpu")))


def timed(run: Callable[[], Any], device: torch.device, *, warm: bool = False) -> list[float]:
    """Return the seconds of some runs, after one to warm up unless ``warm``; by events where there is a GPU."""
    if not warm:
        run()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < ENOUGH_S:
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    return times


def _network(name: str, device: torch.device) -> Network:
    """Return a network by the name of its weights; with random weights where only its kind is known."""
    try:
        return load_network(name, device)
    except WeightsError:
        network: Any = build_network(name, {}).eval().requires_grad_(False).to(device)
        return network


def _measured(
    network: Network,
    name: str,
    sources: int,
    width: int,
    height: int,
    device: torch.device,
    ceilings: dict[str, dict[str, float]],
    end: float,
) -> Speed:
    """Measure a case; the pipeline only where it is done before ``end`` (``time.perf_counter``)."""
    batch = _batch(sources, width, height).to(device)
    with torch.inference_mode(), autocast(network, device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
        precision = "int8" if in_use() else precision
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            network(batch)
        before = _start_peak(device)
        seconds = float(np.median(timed(lambda: network(batch), device, warm=True)))
        peak = _peak(device)
    fits = time.perf_counter() + seconds * (sources + 2) < end
    gflop = counter.get_total_flops() / 1e9
    return Speed(
        network=name,
        width=width,
        height=height,
        sources=sources,
        precision=precision,
        seconds=seconds,
        pipeline_seconds=_pipeline_seconds(network, sources, width, height) if fits else None,
        gflop=gflop,
        share=gflop / seconds / max(ceilings[precision].values()),
        peak_bytes=None if peak is None or before is None else max(0, peak - before),
    )


def _batch(sources: int, width: int, height: int) -> StereoBatch:
    """Return a batch of one with noise for images, cameras in a row."""
    images = torch.randn(1 + sources, 3, height, width, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    K = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    poses = torch.eye(4).repeat(1, sources, 1, 1)
    poses[0, :, 0, 3] = torch.linspace(-0.2, 0.25, sources)
    return StereoBatch(
        ref_image=images[:1],
        src_images=images[None, 1:],
        ref_K=K[None],
        src_K=K.repeat(1, sources, 1, 1),
        src_from_ref=poses,
        min_depth=torch.ones(1),
    )


def _pipeline_seconds(network: Network, sources: int, width: int, height: int) -> float:
    """Return the seconds a view of ``estimate_to_folder`` on a few images of noise."""
    from PIL import Image

    noise = np.random.default_rng(0)
    K = np.array([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1.0]])
    with tempfile.TemporaryDirectory(prefix="nasrecon_bench_") as folder:
        views = []
        for i in range(sources + 1):
            path = Path(folder) / f"{i}.png"
            Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
            pose = np.eye(4)
            pose[0, 3] = -0.1 * i
            views.append(
                View(
                    name=path.name,
                    image=ImageSource(path=path),
                    camera=Camera(width=width, height=height, K=K),
                    cam_from_world=pose,
                )
            )
        options = PrepareOptions(check=False, refine=False, min_depth=1.0, sources=sources)
        scene = prepare_scene(Scene(root=Path(folder), views=tuple(views)), options=options, progress=Quiet())
        run = estimate_to_folder(
            scene, network, Path(folder) / "out", EstimateOptions(size=(width, height)), progress=Quiet()
        )
    return run.seconds / max(1, run.estimated)


def _start_peak(device: torch.device) -> int | None:
    """Set the peak of memory back; returns what is used now [bytes]."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    release_freed_memory()  # else what the network takes again is not seen
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return None if match is None else int(match[1]) * 1024


def speed_rows(rows: Sequence[Speed]) -> list[list[str]]:
    """Return the cells of a table, its head first."""
    head = ["network", "size", "sources", "precision", "network s", "pipeline s", "GFLOP", "of ceiling", "peak MB"]
    cells = [
        [
            row.network,
            f"{row.width}x{row.height}",
            str(row.sources),
            row.precision,
            f"{row.seconds:.3g}",
            "-" if row.pipeline_seconds is None else f"{row.pipeline_seconds:.3g}",
            f"{row.gflop:.3g}",
            f"{row.share:.0%}",
            "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        ]
        for row in rows
    ]
    return [head, *cells]
