"""Bad cameras: transforms and intrinsics as plain text, and options about them."""

from __future__ import annotations

import numpy as np

from faults.harness import CAMERAS, INFER, QUICK, Row, copy, cut, every, line, remove, sub, write

POSE = "poses/0000.txt"
K4 = "66 70 30 26"


def _matrix(values: np.ndarray) -> str:
    return "\n".join(" ".join(map(str, row)) for row in values) + "\n"


def _identity(**changed: float) -> str:
    """Return a 4x4 with some entries, as in r00=2.0 or t0=1e300."""
    out = np.eye(4)
    for name, value in changed.items():
        out[int(name[1]), 3 if name[0] == "t" else int(name[2])] = value
    return _matrix(out)


def _refused(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    return Row(name, edits, command, 2, says)


def _nothing(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    """No view can be estimated; the folder of the results says why of each."""
    return Row(name, edits, command, 2, says, makes=("out",))


def _left_out(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    return Row(name, edits, command, 0, ("3 views estimated", "1 left out", *says), makes=("out",))


POSES = [
    _refused("pose: empty", write(POSE, ""), says=(POSE, "16 or 12 numbers", "found 0")),
    _refused("pose: 15 numbers", write(POSE, "1 " * 15), says=(POSE, "found 15")),
    _refused("pose: words", write(POSE, "eins " * 16), says=(POSE, "expected numbers only, 'eins' is not a number")),
    _refused("pose: bytes", write(POSE, bytes(range(128, 256))), says=(POSE, "cannot be read as text")),
    _refused("pose: zeros", write(POSE, "0 " * 16), says=(POSE, "expected a rotation")),
    _refused("pose: a scaled rotation", write(POSE, _identity(r00=2.0, r11=2.0, r22=2.0)), says=(POSE, "no scale")),
    _refused("pose: left-handed", write(POSE, _identity(r00=-1.0)), says=(POSE, "right-handed")),
    _refused("pose: sheared", write(POSE, _identity(r01=0.5)), says=(POSE, "expected a rotation")),
    _refused("pose: a wrong last row", write(POSE, _identity(r30=1.0)), says=(POSE, "expected a rotation")),
    _refused("pose: huge numbers in the rotation", write(POSE, _identity(r00=1e300)), says=(POSE, "expected a rotation")),
    _refused("pose: transposed", every("poses/*.txt", lambda n: write(n, _matrix(np.eye(4).T + np.diag([1.0] * 3, -1)))), says=("expected a rotation",)),
    _refused("pose: a translation of 1e300", write(POSE, _identity(t0=1e300)), says=(POSE, "1e+300")),
    _refused("poses: translations of 1e300", every("poses/*.txt", lambda n: write(n, _identity(t2=1e300))), says=("0000.txt", "1e+300")),
    _refused("pose: a translation of 1e40", write(POSE, _identity(t1=-1e40)), says=(POSE, "1e+40")),
    _left_out("pose: not a number", write(POSE, _identity(t0=np.nan)), says=("0000.png", "not finite")),
    _left_out("pose: infinite", write(POSE, _identity(t1=np.inf)), says=("0000.png", "not finite")),
    _left_out("pose: gone", remove(POSE), says=("0000.png", "there is no 0000.txt")),
    _refused("poses: all not a number", every("poses/*.txt", lambda n: write(n, "nan " * 16)), says=("no image of it can be used", "not finite")),
    _refused("poses: all gone", every("poses/*.txt", remove), says=("no cameras found",)),
    _refused("poses: no such folder", says=("nowhere: no such",), command=INFER.replace("--poses poses", "--poses nowhere")),
    _refused("poses: an image for them", says=("photos/0000.png",), command=INFER.replace("--poses poses", "--poses photos/0000.png")),
    _refused("poses: one file, too few", write("all.txt", "1 0 0 0 0 1 0 0 0 0 1 0\n" * 3), says=("all.txt", "4 images", "found 36"), command=INFER.replace("--poses poses", "--poses all.txt")),
    _refused("poses: one file, a row short", write("all.txt", "0000.png 1 2 3\n"), says=("all.txt",), command=INFER.replace("--poses poses", "--poses all.txt")),
    _refused("poses: a name twice", write("all.txt", ("0000.png " + "1 0 0 0 0 1 0 0 0 0 1 0\n") * 2), says=("row 2", "there twice"), command=INFER.replace("--poses poses", "--poses all.txt")),
    _refused("poses: names of other images", write("all.txt", "b.png 1 0 0 0 0 1 0 0 0 0 1 0\n"), says=("names no image", "first 0000.png"), command=INFER.replace("--poses poses", "--poses all.txt")),
    _nothing("poses: all the same", every("poses/*.txt", lambda n: write(n, _identity())), says=("none of 4 views", "0000.png")),
    Row("poses: two the same", (copy(POSE, "poses/0001.txt"),), INFER, 0, ("4 views estimated", "0000.png", "0001.png", "one pose"), makes=("out",)),
    _refused("poses: a convention is missing", says=("give the convention",), command=INFER.replace("--convention cam-from-world", "")),
    _refused("poses: an unknown convention", says=("c2w", "cam-from-world"), command=INFER.replace("cam-from-world", "c2w")),
]  # fmt: skip

INTRINSICS = [
    _refused("K: gone", says=("nowhere.txt: no such",), command=INFER.replace("K.txt", "nowhere.txt")),
    _refused("K: empty", write("K.txt", ""), says=("K.txt", "found 0 numbers")),
    _refused("K: five numbers", write("K.txt", "1 2 3 4 5\n"), says=("K.txt",)),
    _refused("K: words", write("K.txt", "fx fy cx cy\n"), says=("K.txt",)),
    _refused("K: bytes", write("K.txt", bytes(range(256))), says=("K.txt", "cannot be read as text")),
    _refused("K: zeros", write("K.txt", "0 0 0 0"), says=("K.txt", "positive fx and fy")),
    _refused("K: negative focal length", write("K.txt", "-66 70 30 26"), says=("K.txt", "positive fx and fy")),
    _refused("K: not a number", write("K.txt", "nan 70 30 26"), says=("K.txt: K must hold finite numbers, found nan in row 1, column 1",)),
    _refused("K: infinite", write("K.txt", "66 70 30 inf"), says=("K.txt: K must hold finite numbers, found inf in row 2, column 3",)),
    _refused("K: lower triangle", write("K.txt", "66 0 30\n5 70 26\n0 0 1"), says=("K.txt", "[fx, s, cx]")),
    _refused("K: a wrong last row", write("K.txt", "66 0 30\n0 70 26\n0 1 1"), says=("K.txt", "[0, 0, 1]")),
    _refused("K: transposed", write("K.txt", "66 0 0\n0 70 0\n30 26 1"), says=("K.txt",)),
    _refused("K: huge", write("K.txt", "1e9 1e9 32 24"), says=("1e+09",)),
    _refused("K: beyond all", write("K.txt", "1e300 1e300 32 24"), says=("1e+300",)),
    _refused("K: tiny", write("K.txt", "1e-9 1e-9 32 24"), says=("1e-09",)),
    _refused("K: principal point far outside", write("K.txt", "66 70 3000 26"), says=("3000", "64x48")),
    _refused("K: principal point far above", write("K.txt", "66 70 30 -9000"), says=("-9000", "64x48")),
    _refused("K: a JSON list", write("K.json", "[1, 2]"), says=("K.json", "expected JSON with fx"), command=INFER.replace("K.txt", "K.json")),
    _refused("K: JSON cut short", write("K.json", '{"fx": 1'), says=("K.json", "it ends at line 1, column 9, before its last closing bracket"), command=INFER.replace("K.txt", "K.json")),
    _refused("K: deeply nested JSON", write("K.json", "[" * 200_000), says=("K.json", "nested"), command=INFER.replace("K.txt", "K.json")),
    _refused("K: JSON without cy", write("K.json", '{"fx": 1, "fy": 1, "cx": 1}'), says=("K.json", "cy"), command=INFER.replace("K.txt", "K.json")),
    _refused("K: JSON of words", write("K.json", '{"fx": "a", "fy": 1, "cx": 1, "cy": 1}'), says=("K.json",), command=INFER.replace("K.txt", "K.json")),
    _refused("K: a negative size in JSON", write("K.json", '{"fx": 9, "fy": 9, "cx": 1, "cy": 1, "width": -64, "height": 48}'), says=("K.json", "-64x48"), command=INFER.replace("K.txt", "K.json")),
    Row("K: another size in JSON", (write("K.json", '{"fx": 66, "fy": 70, "cx": 30, "cy": 26, "width": 640, "height": 480}'),),
        INFER.replace("K.txt", "K.json"), 2, ("none of 4 views", "64x48", "640x480"), makes=("out",)),
    _refused("K: a name without numbers", write("K.txt", f"0000.png {K4}\n0001.png\n"), says=("K.txt, row 2",)),
    _refused("K: a name twice", write("K.txt", f"0000.png {K4}\n" * 2), says=("K.txt, row 2", "there twice")),
    _left_out("K: a name missing", write("K.txt", "".join(f"000{i}.png {K4}\n" for i in range(1, 4))), says=("0000.png", "no intrinsics")),
    _refused("K: of no image", write("K.txt", f"b.png {K4}\n"), says=("no intrinsics",)),
    _refused("K: an empty folder", every("masks/*.png", remove), says=("no intrinsics",), command=INFER.replace("K.txt", "masks")),
    _refused("K: none anywhere", remove("K.txt"), says=("no intrinsics", "fx fy cx cy"), command=INFER.replace("--intrinsics K.txt", "")),
]  # fmt: skip

FIXES = [
    _refused("fix: unknown", says=("--fix", "bogus"), command=f"{INFER} --fix bogus"),
    _refused("fix: a bad size", says=("k-size",), command=f"{INFER} --fix k-size=0x0"),
    _refused("fix: a size of words", says=("k-size",), command=f"{INFER} --fix k-size=axb"),
    _refused("fix: a scale of zero", says=("focal-scale",), command=f"{INFER} --fix focal-scale=0"),
    _refused("fix: a scale that is not a number", says=("translation-scale",), command=f"{INFER} --fix translation-scale=nan"),
    _refused("fix: a translation scale of 1e300", says=("0000.png", "1e+09 at most"), command=f"{INFER} --fix translation-scale=1e300"),
    _refused("fix: a principal point of words", says=("principal-point",), command=f"{INFER} --fix principal-point=a,b"),
    _refused("fix: an unknown order", says=("order",), command=f"{INFER} --fix order=best"),
    _refused("fix: drops a view that is not there", says=("9999.png",), command=f"{INFER} --fix drop=9999.png"),
    _nothing("fix: drops all but one", says=("0003.png",), command=INFER + "".join(f" --fix drop=000{i}.png" for i in range(3))),
]  # fmt: skip

CHECKS = [
    _refused("check: no cameras", says=("no cameras found",), command="check photos"),
    _refused("check: no such images", says=("nowhere: no such",), command="check nowhere"),
    _refused("check: a bad pose", cut(POSE, 0.2), says=(POSE,), command=f"check photos {CAMERAS}"),
    _refused("check: an unknown fix", says=("bogus",), command=f"check photos {CAMERAS} --fix bogus"),
    _refused("check: every zeroth", says=("--every",), command=f"check photos {CAMERAS} --every 0"),
    _refused("check: one view", says=("photos",), command=f"check photos {CAMERAS} --every 9"),
    _refused("check: K of bytes", write("K.txt", b"\xff\xfe\0"), says=("K.txt",), command=f"check photos {CAMERAS}"),
    _refused("check: translations of 1e300", line(POSE, 0, "1 0 0 1e300"), sub(POSE, "e", "e"), says=(POSE,), command=f"check photos {CAMERAS}"),
]  # fmt: skip

SINGLE = [
    _nothing("infer: one view", says=("none of 1 views", "two"), command=f"{INFER} --every 9"),
    _refused("infer: triangulate one view", says=("two views or more",), command=f"{INFER} --every 9 --triangulate"),
    _nothing("infer: poses refined of one view", says=("two",), command=f"infer photos {CAMERAS} --every 9 --fix refine-poses {QUICK.replace('--keep-poses', '')} --out out"),
]  # fmt: skip

ROWS = [*POSES, *INTRINSICS, *FIXES, *CHECKS, *SINGLE]
