"""Photographs as a phone takes them, without cameras, go through one command to a report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.setups import unbroken
from nasrecon import cli
from nasrecon.results.reader import Results

ROOM = Path(__file__).parents[2] / "examples" / "room" / "images"
PORTRAIT = (360, 480)
COUNT = 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Portraits, stored sideways with their EXIF orientation, one of them as HEIC; names with umlauts and spaces."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.register_heif_opener()
    folder = tmp_path_factory.mktemp("phone") / "Fotos für Oma"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, path in enumerate(sorted(ROOM.glob("*.jpg"))[:COUNT]):
        with Image.open(path) as image:
            left = (image.width - PORTRAIT[0]) // 2
            portrait = image.crop((left, 0, left + PORTRAIT[0], PORTRAIT[1]))
        stored = portrait.transpose(Image.Transpose.ROTATE_90)
        stored.save(folder / f"Küche {i}.{'heic' if i % 4 == 3 else 'jpg'}", exif=exif.tobytes(), quality=95)
    (folder / "Küche 9.dng").write_bytes(b"raw")
    return folder


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code, *capsys.readouterr()


def test_photos_in_report_out(photos, tmp_path, capsys) -> None:
    out = tmp_path / "Küche in 3D"
    code, stdout, stderr = run(capsys, "reconstruct", photos, "--out", out, "--network", "zncc")
    assert code == 0, stderr
    assert stderr.count("4 images are turned upright") == 1 and "5 of 5 images have cameras" in stderr
    assert "not read, because no format that is known: 1 .dng" in stderr and re.search(
        r"cameras fit the images: 0\.\d\d px", stderr
    )
    assert stdout.startswith(f"{out}: 5 views estimated") and f"next: nasrecon viz '{out}'" in unbroken(stdout)
    assert all(
        path.is_file() and str(path) in stdout for path in (out / "report.html", out / "mesh.ply", out / "cloud.ply")
    )
    results = Results.open(out)
    assert {view.name for view in results.views} == {path.name for path in photos.iterdir() if path.suffix != ".dng"}
    # The check compared all five, and what it found is in the manifest, fusion.json and the report.
    assert results.epipolar_px.keys() == {view.name for view in results.views}
    assert all(0 < error < 1.5 for error in results.epipolar_px.values())
    quality = json.loads((out / "fusion.json").read_text())["quality"]
    assert {name: line["epipolar_px"] for name, line in quality.items()} == results.epipolar_px
    assert '"epipolar"' in (out / "report.html").read_text()
    for estimate in results:
        assert estimate.depth.shape[0] > estimate.depth.shape[1], "portraits stay portraits"
        ups = -estimate.view.cam_from_world[1, :3]  # the image's upward direction in the world
        assert ups @ -results[0].view.cam_from_world[1, :3] > 0.7
    # The room's ceiling is brighter than its floor in no view turned by 90 degrees, so compare with the photograph.
    with Image.open(ROOM / "room_00.jpg") as image:
        left = (image.width - PORTRAIT[0]) // 2
        upright = image.crop((left, 0, left + PORTRAIT[0], PORTRAIT[1])).resize(results[0].rgb.shape[1::-1])
    assert np.abs(results[0].rgb.astype(float) - np.asarray(upright)).mean() < 6
    before = (out / "sfm" / "sparse" / "0" / "images.bin").stat().st_mtime_ns
    code, stdout, stderr = run(capsys, "reconstruct", photos, "--out", out, "--network", "zncc", "--json")
    facts = json.loads(stdout)
    assert (code, facts["estimated"], facts["kept"]) == (0, 0, 5) and facts["report"] == str(out / "report.html")
    assert (out / "sfm" / "sparse" / "0" / "images.bin").stat().st_mtime_ns == before
    code, _, stderr = run(capsys, "reconstruct", photos, "--out", out)
    assert code == 2 and "made under other settings" in stderr and "features" not in stderr, "found before any work"
