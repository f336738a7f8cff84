"""Which photographs structure from motion takes, and why it leaves some out: every image is named or counted."""

from __future__ import annotations

from types import SimpleNamespace

from PIL import Image

from nasrecon.sfm.photos import find_photos, passed_over
from nasrecon.sfm.reconstruct import _left_out


def test_images_of_subfolders_are_counted_not_mixed_in(tmp_path) -> None:
    for name in ("a.jpg", "b.jpg", "more/c.jpg", "more/deep/d.jpg", "old/e.png", "out/depth/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    root, names = find_photos(tmp_path, tmp_path / "out")
    assert (root, list(names)) == (tmp_path, ["a.jpg", "b.jpg"])
    assert passed_over(root, names, tmp_path / "out") == {"more": 2, "old": 1}
    for name in names:
        (tmp_path / name).unlink()
    root, names = find_photos(tmp_path, tmp_path / "out")  # without images of its own the subfolders are the set
    assert list(names) == ["more/c.jpg", "more/deep/d.jpg", "old/e.png"] and not passed_over(root, names, root / "out")


def model(*names):
    images = {i: SimpleNamespace(name=name) for i, name in enumerate(names)}
    return SimpleNamespace(images=images, reg_image_ids=lambda: list(images))


def test_every_image_without_a_camera_has_its_reason() -> None:
    names = [f"{i}.jpg" for i in range(7)]
    pairs = [("0.jpg", "1.jpg"), ("1.jpg", "2.jpg"), ("3.jpg", "4.jpg"), ("5.jpg", "0.jpg")]
    reasons = dict(_left_out(names, pairs, [model(*names[:3]), model(*names[3:5])]))
    assert list(reasons) == names[3:]
    assert reasons["3.jpg"] == reasons["4.jpg"]
    assert "another group of 2 images" in reasons["3.jpg"]
    assert "too few matches" in reasons["5.jpg"] and "no other image shows the same things" in reasons["6.jpg"]
