"""From a scene to estimates: right numbers through the whole path, bounded memory, nothing left out silently."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from plane_world import SweepNetwork, make_view, plane_depth, write_scene
from recorder import Recorder

from inference.setups import estimate_views, names, prepared
from nasrecon.errors import InputError, NasReconError
from nasrecon.inference import estimate, loader
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.sizes import source_size, working_size
from nasrecon.ingest.open_scene import open_scene
from nasrecon.prepare import prepare
from nasrecon.prepare.options import PrepareOptions
from nasrecon.types import Camera


def median_error(found, unit=1.0):
    """Median relative error of the depth where the view sees what its neighbours see (its middle)."""
    truth = plane_depth(found.view, unit)
    middle = slice(found.depth.shape[0] // 4, -found.depth.shape[0] // 4)
    return float(np.median(np.abs(found.depth / truth - 1)[middle, middle]))


def reader_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nasrecon-read")]


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_depth_comes_out_right_in_any_unit(tmp_path, unit):
    """Files to estimates, with the depth ranges that ingest finds: within the sweep's own precision (0.4 %)."""
    images, poses, K, _ = write_scene(tmp_path, unit=unit)
    opened = open_scene(images, poses, intrinsics=K, convention="cam-from-world")
    estimates = list(estimate_views(opened, SweepNetwork()))
    assert names(estimates) == [f"{i:04d}.png" for i in range(5)]
    for found in estimates:
        assert (found.view.camera.width, found.view.camera.height) == (96, 64) == found.rgb.shape[1::-1]
        assert found.view.name not in found.sources and 1 <= len(found.sources) <= 4
        assert found.view.depth_range is not None
        assert median_error(found, unit) < 0.01


def test_another_size_moves_the_camera_along(scene):
    """At 128x96 (another aspect too) the truth of the resized camera is met, so images and K were resized together."""
    found = next(estimate_views(scene, SweepNetwork(), dict(size=(128, 96), min_depth=1.5), views=[2]))
    assert found.depth.shape == (96, 128) and found.view.camera.K[0, 0] == pytest.approx(95 * 128 / 96)
    assert median_error(found) < 0.01


def test_batches_equal_single_views(scene):
    options = dict(min_depth=1.5, sources=2)
    one, three = SweepNetwork(), SweepNetwork()
    alone = list(estimate_views(scene, one, options))
    together = list(estimate_views(scene, three, options | {"batch": 3}))
    assert one.batch_sizes == [1] * 5 and three.batch_sizes == [3, 2]
    assert names(alone) == names(together)
    for a, b in zip(alone, together, strict=True):
        # torch may sum in another order for another batch size.
        np.testing.assert_allclose(a.depth, b.depth, rtol=1e-5)


@pytest.fixture
def one_at_once(monkeypatch):
    monkeypatch.setattr(estimate, "PARALLEL_VIEWS", 1)


def test_views_are_estimated_as_they_are_asked_for_and_threads_end(scene, one_at_once):
    network = SweepNetwork()
    iterator = estimate_views(scene, network, dict(min_depth=1.5), views=[3, 1])
    assert network.batch_sizes == []
    assert next(iterator).view.name == "0003.png" and network.batch_sizes == [1]
    assert reader_threads()
    iterator.close()
    assert not reader_threads()


@pytest.mark.parametrize(
    ("width", "height", "options", "expected"),
    [
        (640, 480, {}, (640, 480)),
        (1536, 1024, {}, (640, 416)),
        (1024, 1536, {}, (416, 640)),
        (4000, 3000, {"max_side": 1024}, (1024, 768)),
        (4000, 3000, {"max_side": 0}, (4000, 3008)),
        (320, 240, {}, (320, 256)),  # never enlarged but for the rounding: 240 lies between 224 and 256
        (20, 10, {}, (32, 32)),
        (5000, 200, {}, (640, 32)),
        (1536, 1024, {"size": (500, 333)}, (500, 333)),
    ],
)
def test_working_size(width, height, options, expected):
    camera = Camera(width=width, height=height, K=np.diag([100.0, 100.0, 1.0]))
    assert working_size(camera, EstimateOptions(**options)) == expected


def test_what_is_left_out_is_reported_with_its_reason(scene, monkeypatch, caplog):
    lonely = {1}
    real = prepare.select_source_views
    monkeypatch.setattr(prepare, "select_source_views", lambda s, i, n: () if i in lonely else real(s, i, n))
    ranged = scene.replace_views([replace(v, depth_range=(1.5, 9.0)) for v in scene.views[:4]] + [scene.views[4]])
    monkeypatch.setattr(prepare, "with_depth_ranges", lambda s, min_depth: s)
    recorder = Recorder()
    estimates = list(estimate_views(ranged, SweepNetwork(), progress=recorder))
    assert names(estimates) == ["0000.png", "0002.png", "0003.png"]
    assert [name for name, _ in recorder.skips] == ["0001.png", "0004.png"]
    assert "source" in recorder.skips[0][1] and "--min-depth" in recorder.skips[1][1]
    with caplog.at_level(logging.WARNING, "nasrecon"):
        assert len(list(estimate_views(ranged, SweepNetwork()))) == 3
    assert ["0001.png" in caplog.messages[0], "0004.png" in caplog.messages[1]] == [True, True]


def test_an_unreadable_image_costs_its_own_view_only(fresh_scene):
    """It breaks off in the middle of a run of hours: the others go on without it as a source."""
    path = fresh_scene.views[2].image.path
    path.write_bytes(path.read_bytes()[:200])
    recorder = Recorder()
    options = dict(min_depth=1.5, batch=2)
    estimates = list(estimate_views(fresh_scene, SweepNetwork(), options, progress=recorder))
    assert names(estimates) == ["0000.png", "0001.png", "0003.png", "0004.png"]
    assert [name for name, _ in recorder.skips] == ["0002.png"] and str(path) in recorder.skips[0][1]
    assert all("0002.png" not in found.sources and found.sources for found in estimates)


def test_views_whose_sources_are_all_unreadable_are_reported(fresh_scene):
    for view in fresh_scene.views[1:]:
        view.image.path.write_bytes(b"")
    recorder = Recorder()
    assert not list(estimate_views(fresh_scene, SweepNetwork(), dict(min_depth=1.5), progress=recorder))
    assert (
        sorted(dict(recorder.skips)) == [f"{i:04d}.png" for i in range(5)]
        and "none of its sources" in dict(recorder.skips)["0000.png"]
    )


class Greedy(SweepNetwork):
    """A network that runs out of memory with more than ``most`` views at once."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, batch):
        prediction = super().forward(batch)
        if len(batch.ref_image) > self.most:
            raise self.error
        return prediction


ON_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ON_CPU, MemoryError()])
def test_the_batch_is_halved_when_memory_runs_out(scene, error, caplog):
    network = Greedy(1, error)
    with caplog.at_level(logging.WARNING, "nasrecon"):
        found = list(estimate_views(scene, network, dict(min_depth=1.5, batch=4, sources=2)))
    assert names(found) == [f"{i:04d}.png" for i in range(5)]
    assert network.batch_sizes == [4, 2, 1, 1, 1, 1, 1]
    assert [record.args[1:] for record in caplog.records] == [(4, 2), (2, 1)]


def test_a_single_view_that_does_not_fit_is_an_error_that_says_what_to_do(scene):
    with pytest.raises(NasReconError, match=r"0000\.png.*96x64.*--max-side"):
        list(estimate_views(scene, Greedy(0, ON_CPU), dict(min_depth=1.5, batch=2)))
    assert not reader_threads()


def test_other_errors_of_a_network_are_not_swallowed(scene):
    with pytest.raises(RuntimeError, match="shapes"):
        list(estimate_views(scene, Greedy(0, RuntimeError("shapes do not match")), dict(min_depth=1.5, batch=2)))


def test_images_are_read_once_while_the_cache_holds_them_and_it_is_bounded(scene, monkeypatch):
    reads = Counter()
    caches = []
    real_read, real_cache = loader.read_view, loader.ImageCache

    class Watched(real_cache):
        def __init__(self, *args):
            super().__init__(*args)
            caches.append(self)

        def read(self, *args):
            out = super().read(*args)
            assert len(self._images) <= self._capacity
            return out

    def counted(view, *size):
        reads[view.name] += 1
        return real_read(view, *size)

    monkeypatch.setattr(loader, "read_view", counted)
    monkeypatch.setattr(estimate, "ImageCache", Watched)
    list(estimate_views(scene, SweepNetwork(), dict(min_depth=1.5)))
    assert set(reads.values()) == {1} and len(reads) == 5
    reads.clear()
    list(estimate_views(scene, SweepNetwork(), dict(min_depth=1.5, cached_images=1)))
    assert min(reads.values()) > 1 and len(caches) == 2


def test_the_cache_forgets_what_was_used_longest_ago(scene, monkeypatch):
    reads = []
    monkeypatch.setattr(loader, "read_view", lambda view, *size: reads.append(view.name) or (None, view))
    cache = loader.ImageCache(prepared(scene, {"min_depth": 1.5})[0], 2)
    for index in (0, 1, 0, 2, 0, 1):
        cache.read(index, 96, 64)
    assert reads == ["0000.png", "0001.png", "0002.png", "0001.png"]


def test_images_are_not_read_far_ahead(scene, monkeypatch, one_at_once):
    """While one view waits to be taken, one more is read, not all of a thousand."""
    started = []
    real = loader.Job.read
    monkeypatch.setattr(loader.Job, "read", lambda job, cache: started.append(job.ref[0]) or real(job, cache))
    iterator = estimate_views(scene, SweepNetwork(), dict(min_depth=1.5))
    next(iterator)
    iterator.close()  # waits for the reader
    assert len(started) <= 2


def test_a_source_of_another_aspect_is_not_squeezed(scene):
    """A portrait among landscapes is read to fit in, its aspect kept; a nearly equal one fills the frame."""
    portrait = make_view("p.png", 48, 96, 80, (0, 0, 0), (0, 0, 0)).camera
    assert source_size(portrait, 96, 64) == (32, 64)
    assert source_size(scene.views[0].camera.resized(100, 64), 96, 64) == (96, 64)


@pytest.mark.parametrize(
    ("prefers", "capable", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_bfloat16_only_where_network_and_cpu_are_made_for_it(scene, monkeypatch, prefers, capable, expected):
    seen = []

    class Asking(SweepNetwork):
        low_precision = prefers

        def forward(self, batch):
            seen.append(torch.is_autocast_enabled("cpu"))
            assert torch.is_inference_mode_enabled() and batch.ref_image.dtype == torch.float32
            return super().forward(batch)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    list(estimate_views(scene, Asking(), dict(min_depth=1.5), views=[0]))
    assert seen == [expected]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": 0},
        {"max_side": 16},
        {"size": (640, 8)},
        {"batch": 0},
        {"min_depth": 0.0},
        {"min_depth": float("nan")},
    ],
)
def test_options_out_of_range_are_input_errors(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        names = {name for name in wrong if name in ("sources", "min_depth", "every")}
        (PrepareOptions if names else EstimateOptions)(**wrong)


def test_options_stay_few():
    assert len(fields(EstimateOptions)) <= 8


def test_subset_of_a_scene_keeps_visibility_with_its_view(scene):
    visible = tuple(np.array([i]) for i in range(5))
    part = replace(scene, points_in_world=np.zeros((5, 3)), visible=visible).subset([4, 1])
    assert [view.name for view in part.views] == ["0004.png", "0001.png"] and [int(v[0]) for v in part.visible] == [
        4,
        1,
    ]
