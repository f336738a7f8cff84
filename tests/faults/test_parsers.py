"""Every parser of cameras and manifests, given any bytes or any numbers in the place of one of its files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nasrecon.errors import InputError
from nasrecon.ingest.open_scene import open_scene
from nasrecon.nas.manifest import MANIFEST, read_manifest
from nasrecon.types import Scene

K = "8 0 4 0 8 3 0 0 1"
POSE = "1 0 0 0 0 1 0 0 0 0 1 0"
MVSNET = "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\nintrinsic\n8 0 4\n0 8 3\n0 0 1\n1 1"
FRAME = {"file_path": "0000.png", "transform_matrix": np.eye(4).tolist()}
NERF = json.dumps({"fl_x": 8, "fl_y": 8, "cx": 4, "cy": 3, "w": 8, "h": 6, "frames": [FRAME]})

LAYOUTS: dict[str, tuple[dict[str, str | bytes], list[str]]] = {
    "transforms": ({"transforms.json": NERF}, ["0000.png"]),
    "matrices": ({"poses.txt": f"0000.png {POSE}", "K.txt": K}, ["0000.png"]),
    "tum": ({"groundtruth.txt": "0 0 0 0 0 0 0 1", "rgb.txt": "0 0000.png", "K.txt": K}, ["0000.png"]),
    "redwood": ({"trajectory.log": "0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "K.txt": K}, ["0000.png"]),
    "middlebury": ({"dino_par.txt": f"1\n0000.png {K} 1 0 0 0 1 0 0 0 1 0 0 0"}, ["0000.png"]),
    "colmap": ({f"{part}.bin": bytes(8) for part in ("cameras", "images", "points3D")}, ["0000.png"]),
    "mvsnet": ({"0000_cam.txt": MVSNET, "pair.txt": "1\n0\n0"}, ["0000.png"]),
    "strecha": ({"0000.png.camera": f"{K} 0 0 0 1 0 0 0 1 0 0 0 1 0 0 0 8 6"}, ["0000.png"]),
    "kitti": ({"calib.txt": "P0: 8 0 4 0 0 8 3 0 0 0 1 0", "poses.txt": POSE}, ["image_0/000000.png"]),
    "scannet": ({"pose/0.txt": f"{POSE} 0 0 0 1", "intrinsic/intrinsic_color.txt": K}, ["color/0.png"]),
    "7scenes": ({"frame-0.pose.txt": f"{POSE} 0 0 0 1", "camera-intrinsics.txt": K}, ["frame-0.color.png"]),
    "demon": ({"poses.txt": f"{POSE}\n{POSE}", "cam.txt": K}, ["0000.png", "0001.png"]),
}
CASES = [(layout, name) for layout, (files, _) in LAYOUTS.items() for name in files]

VALUES = st.one_of(st.floats(), st.integers(-5, 5), st.sampled_from(["x", "1e999", "-", "", "P0:", "0000.png"]))


def damaged(sound: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes; any row of numbers; and the sound content with one of its words replaced."""
    words = sound.split(b" ")
    one = st.tuples(st.integers(0, len(words) - 1), VALUES).map(
        lambda change: b" ".join([*words[: change[0]], str(change[1]).encode(), *words[change[0] + 1 :]])
    )
    row = st.lists(VALUES, max_size=40).map(lambda values: " ".join(map(str, values)).encode())
    return st.one_of(st.binary(max_size=400), row, one)


def write_layout(folder: Path, layout: str) -> None:
    files, images = LAYOUTS[layout]
    for name in [*files, *images]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name in images:
        Image.new("RGB", (8, 6)).save(folder / name)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def options(layout: str) -> dict[str, object]:
    out: dict[str, object] = {"format": layout}
    if layout in ("tum", "redwood", "matrices"):
        out["intrinsics"] = "K.txt"
    return out | ({"convention": "cam-from-world"} if layout == "matrices" else {})


def opened(folder: Path, layout: str) -> Scene:
    chosen = {key: folder / value if key == "intrinsics" else value for key, value in options(layout).items()}
    return open_scene(folder, **chosen)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "colmap"])
def test_the_sound_layouts_are_read(tmp_path, layout):
    write_layout(tmp_path, layout)
    assert len(opened(tmp_path, layout).views) == len(LAYOUTS[layout][1])


@pytest.mark.parametrize(("layout", "name"), CASES)
@given(data=st.data())
def test_any_content_gives_an_error_or_a_scene(tmp_path_factory, layout, name, data):
    folder = tmp_path_factory.mktemp("any")
    write_layout(folder, layout)
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scene = opened(folder, layout)
    except InputError as error:
        assert str(error)
        return
    assert all(np.isfinite(view.cam_from_world).all() and np.isfinite(view.camera.K).all() for view in scene.views)


@pytest.mark.parametrize("number", ["inf", "nan", "1e310"])
def test_a_strecha_camera_of_no_finite_width_names_its_file(tmp_path, number):
    write_layout(tmp_path, "strecha")
    (tmp_path / "0000.png.camera").write_text(f"{K} 0 0 0 1 0 0 0 1 0 0 0 1 0 0 0 {number} 6")
    with pytest.raises(InputError, match=r"0000\.png\.camera: number 25 is (inf|nan), expected a finite number"):
        opened(tmp_path, "strecha")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries({}, optional={key: JSON for key in ("name", "network", "file", "sha256", "bytes")})


@given(
    content=st.one_of(
        st.binary(max_size=300),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.lists(ENTRY, max_size=3).map(lambda rows: json.dumps({"weights": rows}).encode()),
    )
)
def test_any_manifest_of_weights_gives_an_error_or_entries(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / MANIFEST).write_bytes(content)
    try:
        assert all(entry.name for entry in read_manifest(folder))
    except InputError as error:
        assert MANIFEST in str(error)
