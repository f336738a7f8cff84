"""Bad images and masks."""

from __future__ import annotations

import struct
import zlib

from faults.harness import INFER, Row, copy, cut, every, flip, folder, image, remove, write

MASKED = f"{INFER} --masks masks"
FIRST = "photos/0000.png"


def _png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header states a size, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def _left_out(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    """One image is left out, by name, and the other three go on."""
    return Row(name, edits, command, 0, ("3 views estimated", "1 left out", *says), makes=("out",))


def _remark(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    """All views are estimated, and the summary names what is odd."""
    return Row(name, edits, command, 0, ("4 views estimated", *says), makes=("out",))


def _refused(name: str, *edits, says: tuple[str, ...], command: str = INFER) -> Row:
    return Row(name, edits, command, 2, says)


UNREADABLE = "cannot be read as an image"
ROWS = [
    _left_out("image: empty file", write(FIRST, b""), says=(UNREADABLE,)),
    _left_out("image: text", write(FIRST, "no picture"), says=(UNREADABLE,)),
    _left_out("image: zeros", write(FIRST, bytes(1000)), says=(UNREADABLE,)),
    _left_out("image: header only", cut(FIRST, 0.02), says=(UNREADABLE,)),
    _left_out("image: cut short", cut(FIRST, 0.7), says=(UNREADABLE,)),
    _left_out("image: bytes turned over", flip(FIRST, 0.4, 60), says=(UNREADABLE,)),
    _left_out("image: header turned over", flip(FIRST, 0.0, 8), says=(UNREADABLE,)),
    _left_out("image: a folder of its name", remove(FIRST), folder(FIRST), says=("0000",)),
    _left_out("image: gone", remove(FIRST), says=("no image of that name",)),
    _remark("image: another size", image(FIRST, (80, 48), 90), says=("0000.png", "80x48", "64x48")),
    _left_out("image: one pixel", image(FIRST, (1, 1), 90), says=("1x1",)),
    _remark("image: turned by 90 degrees", image(FIRST, (48, 64), 90), says=("0000.png", "48x64")),
    _left_out("image: above the decoder's limit", write(FIRST, _png_of_size(60000, 60000)), says=("3600000000 pixels",)),
    _left_out("image: a size of 2^31", write(FIRST, _png_of_size(2**31 - 1, 2**31 - 1)), says=("0000.png",)),
    _left_out("image: a size of zero", write(FIRST, _png_of_size(0, 0)), says=(UNREADABLE,)),
    _left_out("image: a size that its bytes do not fill", write(FIRST, _png_of_size(64, 48)), says=(UNREADABLE,)),
    _left_out("image: floats", remove(FIRST), image("photos/0000.tif", mode="F"), says=("0000.tif", "float32")),
    _left_out("image: 32-bit", remove(FIRST), image("photos/0000.tif", mode="I", value=1 << 20), says=("int32",)),
    _left_out("image: a cut JPEG", remove(FIRST), image("photos/0000.jpg"), cut("photos/0000.jpg", 0.3), says=(UNREADABLE,)),
    _left_out("image: a JPEG of bytes", remove(FIRST), write("photos/0000.jpg", b"\xff\xd8\xff" + bytes(99)), says=(UNREADABLE,)),
    _left_out("image: a WebP of bytes", remove(FIRST), write("photos/0000.webp", b"RIFF" + bytes(99)), says=(UNREADABLE,)),
    _left_out("image: a BMP of bytes", remove(FIRST), write("photos/0000.bmp", b"BM" + bytes(99)), says=(UNREADABLE,)),
    _left_out("image: a TIFF of bytes", remove(FIRST), write("photos/0000.tif", b"II*\0" + b"\xff" * 99), says=(UNREADABLE,)),
    Row("image: one besides, without a pose", (copy(FIRST, "photos/0009.png"),), INFER, 0,
        ("4 views estimated", "0009.png", "1 left out"), makes=("out",)),
    _refused("images: all empty", every("photos/*.png", lambda n: write(n, b"")), says=("no image", "0000.png")),
    _refused("images: all gone", every("photos/*.png", remove), says=("no cameras found",)),
    Row("images: all but one gone", (remove("photos/0001.png", "photos/0002.png", "photos/0003.png"),), INFER, 2, ("0000.png", "two views or more"), makes=("out",)),
    _refused("images: two of one stem", copy(FIRST, "photos/0000.bmp"), says=("0000.txt", "two images")),
    _refused("images: a file for the folder", write("file", "x"), says=("expected a folder",), command=INFER.replace("photos", "file")),
    _refused("images: no such folder", says=("nowhere: no such",), command=INFER.replace("photos", "nowhere")),
    _refused("images: an empty folder", folder("empty"), says=("no cameras found",), command=INFER.replace("photos", "empty")),
    _refused("images: a broken video", write("clip.gif", b"GIF89a"), says=("clip.gif",), command=INFER.replace("photos", "clip.gif")),
    _refused("images: an empty mp4", write("clip.mp4", b""), says=("clip.mp4", "finds no video"), command=INFER.replace("photos", "clip.mp4")),
    _remark("image: black", image(FIRST, value=0), says=("0000.png", "black")),
    _remark("image: blown out", image(FIRST, value=255), says=("0000.png", "white")),
    _remark("image: one grey", image(FIRST, value=128), says=("0000.png", "one colour")),
    _remark("images: all black", every("photos/*.png", image), says=("0000.png", "0003.png", "black")),
    _remark("image: grey and alpha", image(FIRST, mode="LA", value=77), says=("0000.png", "one colour")),
    _remark("mask: keeps nothing", image("masks/0000.png", mode="L"), says=("0000.png", "mask", "no pixel"), command=MASKED),
    _remark("masks: none keeps anything", every("masks/*.png", lambda n: image(n, mode="L")), says=("0003.png", "no pixel"), command=MASKED),
    _refused("masks: an empty folder", every("masks/*.png", remove), says=("masks: no mask for any of the 4 views: there is no image in the folder; the views are 0000.png",), command=MASKED),
    _remark("mask: gone", remove("masks/0000.png"), says=("0000.png",), command=MASKED),
    Row("mask: cut short", (cut("masks/0000.png", 0.7),), MASKED, 0,
        ("3 views estimated", "masks/0000.png", "cannot be read as a mask"), makes=("out",)),
    _refused("mask: empty file", write("masks/0000.png", b""), says=("masks/0000.png", "cannot be read"), command=MASKED),
    _refused("mask: another size", image("masks/0000.png", (32, 24), mode="L"), says=("32x24", "64x48"), command=MASKED),
    _refused("mask: above the decoder's limit", write("masks/0000.png", _png_of_size(60000, 60000)), says=("masks/0000.png", "3600000000 pixels"), command=MASKED),
    _refused("mask: two for one", copy("masks/0000.png", "masks/0000.bmp"), says=("several masks",), command=MASKED),
    _refused("masks: of other names", every("masks/*.png", remove), image("masks/a.png"), says=("no mask for any",), command=MASKED),
    _refused("masks: a file", write("m.png", "x"), says=("expected a folder with a mask",), command=f"{INFER} --masks m.png"),
    _refused("masks: no such folder", says=("nowhere: no such",), command=f"{INFER} --masks nowhere"),
]  # fmt: skip
