"""Bad COLMAP models, transforms.json, MVSNet's cams, and the other formats, each damaged in the same ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ingest import worlds

from faults.harness import COLMAP, JSON, MVSNET, QUICK, Edit, Row, cut, every, fields, frame, line, remove, sub, write

IDENTITY = np.eye(4).tolist()


def _refused(command: str, name: str, *edits, says: tuple[str, ...]) -> Row:
    return Row(name, edits, command, 2, says)


def _left_out(command: str, name: str, *edits, says: tuple[str, ...]) -> Row:
    return Row(name, edits, command, 0, ("3 views estimated", "left out", *says), makes=("out",))


def _said(command: str, name: str, *edits, says: tuple[str, ...]) -> Row:
    return Row(name, edits, command, 0, ("4 views estimated", *says), makes=("out",))


CAMERA = "model/cameras.txt"


def _camera(text: str) -> Edit:
    return write(CAMERA, f"1 {text}\n")


def _binary(name: str, damage: Callable[[str], Edit]) -> tuple[Edit, ...]:
    """Turn the model into binary files, and damage one."""

    def to_binary(w: Path) -> None:
        import pycolmap

        pycolmap.Reconstruction(w / "model").write_binary(w / "model")
        for path in (w / "model").glob("*.txt"):
            path.unlink()

    return to_binary, damage(f"model/{name}.bin")


PARTS = ("cameras", "images", "points3D")
MODELS = [
    *(_refused(COLMAP, f"COLMAP: {part}.txt is gone", remove(f"model/{part}.txt"), says=("model",)) for part in PARTS),
    _refused(COLMAP, "COLMAP: cameras.txt is empty", write(CAMERA, ""), says=("model", "cannot read")),
    _refused(COLMAP, "COLMAP: images.txt is empty", write("model/images.txt", ""), says=("model", "points3D.txt names image 1, which is not in images.txt")),
    _refused(COLMAP, "COLMAP: cameras.txt is bytes", write(CAMERA, bytes(range(256))), says=("model", "a line of cameras.txt")),
    _refused(COLMAP, "COLMAP: images.txt is bytes", write("model/images.txt", bytes(range(256))), says=("model", "a line of images.txt")),
    _refused(COLMAP, "COLMAP: points3D.txt is bytes", write("model/points3D.txt", bytes(range(256))), says=("model", "a line of points3D.txt")),
    _refused(COLMAP, "COLMAP: an unknown camera model", _camera("BOGUS 64 48 66 70 30 26"), says=("cameras.txt names a camera model that pycolmap does not know",)),
    _refused(COLMAP, "COLMAP: too few parameters", _camera("PINHOLE 64 48 66"), says=("model", "number of parameters")),
    _refused(COLMAP, "COLMAP: focal length zero", _camera("PINHOLE 64 48 0 0 30 26"), says=("model: camera 1", "positive fx and fy")),
    _refused(COLMAP, "COLMAP: focal length not a number", _camera("PINHOLE 64 48 nan 70 30 26"), says=("model",)),
    _refused(COLMAP, "COLMAP: size zero", _camera("PINHOLE 0 0 66 70 30 26"), says=("model: camera 1", "0x0")),
    _refused(COLMAP, "COLMAP: principal point far outside", _camera("PINHOLE 64 48 66 70 9000 26"), says=("9000", "64x48")),
    _refused(COLMAP, "COLMAP: absurd distortion", _camera("SIMPLE_RADIAL 64 48 66 30 26 100"), says=("SIMPLE_RADIAL", "distortion", "100")),
    _refused(COLMAP, "COLMAP: absurd tangential distortion", _camera("OPENCV 64 48 66 70 30 26 0 0 50 50"), says=("OPENCV", "distortion")),
    _refused(COLMAP, "COLMAP: distortion not a number", _camera("OPENCV 64 48 66 70 30 26 nan 0 0 0"), says=("model",)),
    _refused(COLMAP, "COLMAP: an image of another camera", sub("model/images.txt", " 1 0000.png", " 7 0000.png"), says=("model", "images.txt names camera 7, which is not in cameras.txt")),
    _refused(COLMAP, "COLMAP: rigs.bin is gone", *_binary("rigs", remove), says=("model: the COLMAP model lacks rigs.bin. Export it again",)),
    _refused(COLMAP, "COLMAP: rigs.bin of another model", *_binary("rigs", lambda n: write(n, bytes(8))), says=("frames.bin names rig 1, which is not in rigs.bin",)),
    _left_out(COLMAP, "COLMAP: an image without its file", sub("model/images.txt", "0000.png", "a.png"), says=("a.png", "no such image file")),
    _refused(COLMAP, "COLMAP: names of other images", sub("model/images.txt", ".png", ".jpg"), says=("none of its 4 images", "photos holds")),
    _refused(COLMAP, "COLMAP: a translation of 1e300", line("model/images.txt", 0, "1 1 0 0 0 1e300 0 0 1 0000.png"), says=("0000.png", "1e+300")),
    _refused(COLMAP, "COLMAP: a quaternion of zeros", line("model/images.txt", 0, "1 0 0 0 0 0 0 0 1 0000.png"), says=("0000.png", "quaternion", "zeros")),
    _refused(COLMAP, "COLMAP: a pose that is not a number", line("model/images.txt", 0, "1 1 0 0 0 nan 0 0 1 0000.png"), says=("model", "cannot read")),
    _refused(f"{COLMAP} --convention world-from-cam", "COLMAP: a convention", says=("leave the convention out",)),
    _refused(f"{COLMAP} --intrinsics K.txt", "COLMAP: intrinsics", says=("leave K.txt out",)),
    *(
        _refused(COLMAP, f"COLMAP: {part}.bin is {how}", *_binary(part, damage), says=(f"{part}.bin", "cut short or damaged"))
        for part in PARTS
        for how, damage in {
            "cut short": lambda n: cut(n, 0.8),
            "empty": lambda n: write(n, b""),
            "bytes": lambda n: write(n, b"\xff" * 400),
        }.items()
    ),
]  # fmt: skip

NERF = "nerf.json"
TRANSFORMS = [
    _refused(JSON, "transforms: empty file", write(NERF, ""), says=(f"{NERF}: cannot be read as JSON (the file is empty)",)),
    _refused(JSON, "transforms: cut short", cut(NERF), says=(f"{NERF}: cannot be read as JSON (it ends at line 1, column",)),
    _refused(JSON, "transforms: a comma is missing", write(NERF, '{"w": 64 "h": 48}'), says=(f"{NERF}: cannot be read as JSON (at line 1, column 10: a comma",)),
    _refused(JSON, "transforms: bytes", write(NERF, bytes(range(128, 256))), says=(NERF,)),
    _refused(JSON, "transforms: a list", write(NERF, "[]"), says=(NERF,)),
    _refused(JSON.replace(NERF, "transforms.json"), "transforms: deeply nested", write("transforms.json", '{"frames":' * 100_000), says=("transforms.json", "nested")),
    _refused(JSON.replace(NERF, "transforms.json"), "transforms: nested lists", write("transforms.json", "[" * 300_000), says=("transforms.json", "nested")),
    _refused(JSON, "transforms: huge numbers", fields(NERF, fl_x=1e300), says=("1e+300",)),
    _refused(JSON, "transforms: frames is a number", fields(NERF, frames=5), says=(NERF, "list of frames, each with its fields, found 5")),
    _refused(JSON, "transforms: no frame", fields(NERF, frames=[]), says=(NERF, "list of frames is empty")),
    _refused(JSON, "transforms: frames of numbers", fields(NERF, frames=[1, 2]), says=(NERF, "found a list of other things")),
    _refused(JSON, "transforms: no focal length", fields(NERF, fl_x=None, fl_y=None), says=(NERF, "no focal length")),
    _refused(JSON, "transforms: focal length of words", fields(NERF, fl_x="wide"), says=(NERF, "fl_x must be a number")),
    _refused(JSON, "transforms: negative focal length", fields(NERF, fl_x=-5), says=(NERF, "positive")),
    _refused(JSON, "transforms: principal point far outside", fields(NERF, cx=9000), says=("9000", "64x48")),
    _refused(JSON, "transforms: a list for a number", fields(NERF, cx=[1]), says=(NERF, "cx must be a number")),
    _refused(JSON, "transforms: a size of 1e30", fields(NERF, w=1e30), says=(f"{NERF}: w must be", "found 1e+30", "0000.png is 64x48")),
    _refused(JSON, "transforms: an infinite size", fields(NERF, h=float("inf")), says=(NERF, "finite")),
    _refused(JSON, "transforms: absurd distortion", fields(NERF, k1=100), says=("distortion", "k1", "100")),
    _refused(JSON, "transforms: absurd fisheye", fields(NERF, camera_model="OPENCV_FISHEYE", k1=1e6), says=("distortion", "1e+06")),
    _refused(JSON, "transforms: an angle of 4", fields(NERF, fl_x=None, fl_y=None, camera_angle_x=4), says=(NERF, "(0, pi)")),
    _refused(JSON, "transforms: an unknown camera model", fields(NERF, camera_model="MAGIC"), says=("MAGIC",)),
    _refused(JSON, "transforms: p1 of a fisheye", fields(NERF, camera_model="OPENCV_FISHEYE", p1=0.1), says=(f"{NERF}: 0000.png: expected the distortion of camera model OPENCV_FISHEYE, found p1 = 0.1: a fisheye has no p1",)),
    _refused(JSON, "transforms: a scale of zero", fields(NERF, applied_scale=0), says=(NERF, "applied_scale")),
    _refused(JSON, "transforms: an applied transform of words", fields(NERF, applied_transform="x"), says=(NERF, "applied_transform")),
    _refused(JSON, "transforms: no matrix", frame(NERF, 0, transform_matrix=None), says=(NERF, "frame 1", "no transform_matrix")),
    _refused(JSON, "transforms: a ragged matrix", frame(NERF, 0, transform_matrix=[[1], [1, 2]]), says=(NERF, "frame 1", "4x4 or 3x4")),
    _refused(JSON, "transforms: a matrix of words", frame(NERF, 0, transform_matrix="x"), says=(NERF, "frame 1")),
    _refused(JSON, "transforms: a matrix of zeros", frame(NERF, 0, transform_matrix=[[0] * 4] * 4), says=(NERF, "frame 1", "rotation")),
    _refused(JSON, "transforms: a translation of 1e300", frame(NERF, 0, transform_matrix=[[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), says=(NERF, "frame 1", "1e+300")),
    _refused(JSON, "transforms: no file_path", frame(NERF, 0, file_path=None), says=(NERF, "frame 1", "no file_path")),
    _refused(JSON, "transforms: a number as file_path", frame(NERF, 0, file_path=7), says=(NERF, "no file_path")),
    _refused(JSON, "transforms: an image twice", frame(NERF, 0, file_path="photos/0001.png"), says=(NERF, "there twice")),
    _refused(JSON, "transforms: a mask that is not there", frame(NERF, 0, mask_path="m.png"), says=("mask_path m.png", "no such file")),
    _refused(JSON, "transforms: a name with a zero byte", frame(NERF, 0, file_path="a\0b"), says=(NERF,)),
    _refused(JSON, "transforms: a name of 5000 letters", frame(NERF, 0, file_path="a" * 5000), says=(NERF,)),
    _left_out(JSON, "transforms: an image without its file", frame(NERF, 0, file_path="photos/a.png"), says=("photos/a.png", "no such image")),
    _left_out(JSON, "transforms: a matrix that is not a number", frame(NERF, 0, transform_matrix=[[float("nan")] * 4] * 4), says=("0000.png", "not finite")),
    _refused(f"{JSON} --intrinsics K.txt", "transforms: intrinsics", says=("leave K.txt out",)),
]  # fmt: skip

PAIRS = "mvs/pair.txt"
CAM = "mvs/cams/00000000_cam.txt"
CAMS = [
    _refused(MVSNET, "MVSNet: an empty camera", write(CAM, ""), says=(CAM, "extrinsic", "the file is empty")),
    _refused(MVSNET, "MVSNet: a camera cut short", cut(CAM), says=(CAM, "extrinsic")),
    _refused(MVSNET, "MVSNet: a camera of bytes", write(CAM, b"\x80\xff" * 50), says=(CAM, "cannot be read as text")),
    _refused(MVSNET, "MVSNet: without intrinsic", sub(CAM, "intrinsic", "x"), says=(CAM, "extrinsic")),
    _left_out(MVSNET, "MVSNet: a camera is gone", remove(CAM), says=("00000000.png",)),
    _said(MVSNET, "MVSNet: a depth range that is none", sub(CAM, "1.5 0.01", "-3 0.01"), says=("00000000_cam.txt", "is no range")),
    _refused(MVSNET, "MVSNet: pair.txt of words", write(PAIRS, "four"), says=("pair.txt", "numbers")),
    _refused(MVSNET, "MVSNet: pair.txt is empty", write(PAIRS, ""), says=("pair.txt: the file is empty; expected the number of views",)),
    _refused(MVSNET, "MVSNet: pair.txt cut short", cut(PAIRS), says=("pair.txt", "cut short")),
    _refused(MVSNET, "MVSNet: pair.txt promises 1e18 views", line(PAIRS, 0, "1e18"), says=("pair.txt", "is 1000000000000000000, but the file has only 33 numbers")),
    _refused(MVSNET, "MVSNet: pair.txt promises infinitely many", line(PAIRS, 0, "inf"), says=("pair.txt: its first number is inf, no number of views",)),
    _refused(MVSNET, "MVSNet: a negative count in pair.txt", line(PAIRS, 2, "-3 1 1.0"), says=("pair.txt",)),
    _refused(MVSNET, "MVSNet: not a number in pair.txt", line(PAIRS, 2, "nan 1 1.0"), says=("pair.txt",)),
    _said(MVSNET, "MVSNet: pair.txt names views that are not there", line(PAIRS, 2, "3 77 1.0 1 1.0 78 1.0"), says=("pair.txt", "2 entries", "no such view")),
    _said(MVSNET, "MVSNet: pair.txt names a view as its own source", line(PAIRS, 2, "2 0 1.0 1 1.0"), says=("pair.txt", "1 entry")),
    _said(MVSNET, "MVSNet: pair.txt has a view that is not there", line(PAIRS, 1, "99"), says=("pair.txt", "view 99")),
    _said(MVSNET, "MVSNet: a fraction in pair.txt", line(PAIRS, 2, "2 1.5 1.0 1 1.0"), says=("pair.txt", "1 entry")),
]  # fmt: skip

# Formats, their writers, the file that holds the cameras, and the options that they need.
FORMATS = {
    "7scenes": (worlds.write_seven_scenes, "frame-0000.pose.txt", "."),
    "demon": (worlds.write_demon, "poses.txt", "."),
    "redwood": (worlds.write_redwood, "trajectory.log", "."),
    "tum": (worlds.write_tum, "groundtruth.txt", "."),
    "scannet": (worlds.write_scannet, "pose/0.txt", "."),
    "kitti": (worlds.write_kitti, "poses/07.txt", "sequences/07/image_2"),
    "middlebury": (worlds.write_middlebury, "dino_par.txt", "."),
    "strecha": (worlds.write_strecha, "cameras/0000.png.camera", "."),
}


def _format_rows(key: str) -> list[Row]:
    """Damage the file that holds the cameras of a format in ways that no reader can take."""
    writer, file, images = FORMATS[key]
    command = f"infer set/{images} --format {key} {QUICK} --out out"

    def make(w):
        return writer(worlds.small_scene(), w / "set")

    name, stem = f"set/{file}", Path(file).name
    damage = {
        "is empty": write(name, ""),
        "is bytes": write(name, bytes(range(128, 256)) * 4),
        "is words": write(name, "lorem ipsum dolor\n" * 40),
        "is cut short": cut(name, 0.45),
        "holds 1e300": every(name, lambda n: _replaced_number(n, "1e300")),
        "is gone": remove(name),
    }
    if key == "middlebury":
        del damage["holds 1e300"]  # the number is one of K: that view is left out
    if key in ("scannet", "7scenes", "strecha"):
        del damage["is gone"]  # one file of many: that view is left out
    return [
        Row(f"{key}: {stem} {how}", (make, edit), command, 2, (_word(key, stem, how),)) for how, edit in damage.items()
    ]


def _word(key: str, stem: str, how: str) -> str:
    """Return what the message must name: the file, or the format where the file marks it."""
    return (
        key_name(key) if how == "is gone" or (key == "kitti" and how in ("is empty", "is bytes", "is words")) else stem
    )


def key_name(key: str) -> str:
    return {"demon": "DeMoN", "redwood": "Redwood", "tum": "TUM", "kitti": "KITTI", "middlebury": "Middlebury"}[key]


def _replaced_number(name: str, new: str) -> Edit:
    """Replace the last number that has a point in it, which belongs to a position or a rotation."""

    def edit(w: Path) -> None:
        words = (w / name).read_text().split("\n")
        at = next(i for i, text in enumerate(words) if text.count(".") >= 4 or (i > 2 and text.count(".") >= 3))
        row = words[at].split()
        place = {"tum": 1}.get(w.name, 3)
        row[place if len(row) > place else -1] = new
        words[at] = " ".join(row)
        (w / name).write_text("\n".join(words))

    return edit


ROWS = [*MODELS, *TRANSFORMS, *CAMS, *(row for key in FORMATS for row in _format_rows(key))]
