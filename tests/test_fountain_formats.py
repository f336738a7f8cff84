"""The bar of the formats: fountain written in another format gives the depths of its COLMAP model to 1e-3.

Depth ranges and sources are those of the COLMAP run (a model's sparse points decide them, and the other formats have
none), so what is compared is what the files say of the cameras. The figures of a larger run:

    python tests/test_fountain_formats.py [MAX_SIDE] [REFERENCES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ingest import worlds

from nasrecon.inference.estimate import estimate_views
from nasrecon.inference.options import EstimateOptions
from nasrecon.ingest.open_scene import open_scene
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.scene.depth_range import with_depth_ranges
from nasrecon.scene.source_views import select_source_views
from nasrecon.types import Hints

FOUNTAIN = worlds.DATA / "fountain"
BAR = 1e-3


def written(scene, folder, monkeypatch):
    """Write the scene's cameras in each format, beside nothing: the images stay where they are. Returns the scenes
    read."""
    monkeypatch.setattr(worlds, "write_images", lambda *args, **kwargs: None)
    writers = {
        "transforms.json": worlds.write_instant_ngp,
        "transforms.json, nerfstudio": worlds.write_nerfstudio,
        "MVSNet cams": lambda scene, folder: worlds.write_mvsnet(scene, folder, prefix=""),
        "Strecha cameras": worlds.write_strecha,
        "K and 4x4": worlds.write_plain_K_each,
    }
    marks = {"MVSNet cams": "cams", "Strecha cameras": "cameras", "K and 4x4": "poses"}
    out = {}
    for i, (name, write) in enumerate(writers.items()):
        place = folder / str(i)
        place.mkdir()
        given = write(scene, place)
        given["poses"] = place / marks.get(name, "transforms.json")
        out[name] = open_scene(**{**given, "images": scene.root})
    return out


def colmap_scene(refs, sources):
    """Return the COLMAP scene with its depth ranges, and the sources that its points choose for the references."""
    scene = with_depth_ranges(open_scene(FOUNTAIN / "images", FOUNTAIN / "sparse" / "0"))
    names = [view.name for view in scene.views]
    listed = {names[ref]: tuple(names[i] for i in select_source_views(scene, ref, sources)) for ref in refs}
    return replace(scene, hints=Hints(sources=listed))


def as_chosen_by(colmap, scene):
    """Return a scene with the depth ranges and sources of the COLMAP run."""
    pairs = list(zip(scene.views, colmap.views, strict=True))
    sources = {view.name: colmap.hints.sources[own.name] for view, own in pairs if own.name in colmap.hints.sources}
    views = [replace(view, depth_range=own.depth_range, depth_range_from="COLMAP's run") for view, own in pairs]
    return replace(scene.replace_views(views), hints=Hints(sources=sources))


def off(found, expected):
    """Return the relative difference of two estimates' depths where both have one, and the share where only one has."""
    both = (found.depth > 0) & (expected.depth > 0)
    relative = np.abs(found.depth[both] / expected.depth[both] - 1)
    return relative, float(((found.depth > 0) != (expected.depth > 0)).mean())


def ready(scene, sources=2):
    return prepare_scene(scene, options=PrepareOptions(check=False, refine=False, sources=sources))


@pytest.fixture(scope="module")
def network():
    from nasrecon.nas.weights import load_network

    return load_network("lite", device="cpu")


def test_fountain_in_other_formats_gives_colmaps_depths(network, tmp_path, monkeypatch) -> None:
    if not FOUNTAIN.is_dir():
        pytest.skip("needs the development set fountain at ../shared/data")
    colmap = colmap_scene([5], 2)
    options = EstimateOptions(size=(128, 96))
    (expected,) = estimate_views(ready(colmap), network, options, views=[5])
    assert (expected.depth > 0).mean() > 0.5
    for name, scene in written(colmap, tmp_path, monkeypatch).items():
        (found,) = estimate_views(ready(as_chosen_by(colmap, scene)), network, options, views=[5])
        assert found.sources == expected.sources, name
        relative, only_one = off(found, expected)
        assert relative.max() <= BAR and only_one <= 1e-4, name


def measure(max_side: int, refs: list[int]) -> None:
    from nasrecon.nas.weights import load_network

    loaded, colmap = load_network("lite", device="cpu"), colmap_scene(refs, 4)
    options = EstimateOptions(max_side=max_side)
    since = time.perf_counter()
    expected = list(estimate_views(ready(colmap, 4), loaded, options, views=refs))
    print(
        f"COLMAP: {len(expected)} views of {expected[0].depth.shape}, {time.perf_counter() - since:.0f} s", flush=True
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        for name, scene in written(colmap, Path(folder), monkeypatch).items():
            estimates = list(estimate_views(ready(as_chosen_by(colmap, scene), 4), loaded, options, views=refs))
            offs = [off(found, own) for found, own in zip(estimates, expected, strict=True)]
            relative = np.concatenate([each for each, _ in offs])
            print(
                f"{name}: relative difference of the depths: mean {relative.mean():.1e}, 99.9 % "
                f"{np.quantile(relative, 0.999):.1e}, largest {relative.max():.1e}; in one only: "
                f"{max(s for _, s in offs):.1e}",
                flush=True,
            )


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    measure(arguments[0] if arguments else 640, arguments[1:] or [1, 5, 9])
