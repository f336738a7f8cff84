"""Every fix undoes the mistake that it is named after, and says what it does not understand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plane_world import make_view

from nasrecon.bench.faults import FAULTS
from nasrecon.check.camera_edits import natural_order, with_order
from nasrecon.check.fixes import FIXES, apply_fixes
from nasrecon.errors import InputError
from nasrecon.geometry import quaternion_from_rotation, rotation_angle_deg, rotation_from_quaternion
from nasrecon.ingest.undistort import pinhole_camera
from nasrecon.types import ImageSource, Lens, Scene, View

UNDOES = {
    "poses the wrong way round": ["world-from-cam"],
    "OpenGL axes": ["opengl-axes"],
    "OpenGL axes, the wrong way round": ["world-from-cam", "opengl-axes"],
    "rotations transposed": ["transposed-rotations"],
    "positions for translations": ["camera-centers"],
    "x y z w read as w x y z": ["quaternion-xyzw"],
    "w x y z read as x y z w": ["quaternion-wxyz"],
    "x y z w of world_from_cam read as w x y z": ["quaternion-xyzw=world-from-cam"],
    "K of double size": ["k-size=192x128"],
    "K of half size": ["k-size=48x32"],
    "cx and cy exchanged": ["swap-principal-point"],
    "principal point off by 12 % to the right": ["principal-point=-11.52,0"],
    "order reversed": ["order=reversed"],
    "millimetres for metres": ["translation-scale=0.001"],
}


def scene_of(names: list[str]) -> Scene:
    rng = np.random.default_rng(4)
    return Scene(
        root=Path("x"),
        views=[make_view(name, 96, 64, 95, rng.uniform(-170, 170, 3), rng.normal(size=3)) for name in names],
    )


SCENE = scene_of([f"{i}.png" for i in range(6)])


@pytest.mark.parametrize("name", UNDOES)
def test_a_fix_undoes_its_fault(name: str) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    broken = fault.inject(SCENE, np.random.default_rng(0), Path("x"))
    moved = [
        np.abs(a.cam_from_world - b.cam_from_world).max() + np.abs(a.camera.K - b.camera.K).max()
        for a, b in zip(SCENE.views, broken.views, strict=True)
    ]
    assert max(moved) > 0.1
    fixed = apply_fixes(broken, UNDOES[name])
    for sound, view in zip(SCENE.views, fixed.views, strict=True):
        np.testing.assert_allclose(view.cam_from_world, sound.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(view.camera.K, sound.camera.K, atol=1e-9)


def test_fixes_that_take_numbers() -> None:
    K = SCENE.views[0].camera.K
    scaled = apply_fixes(SCENE, ["focal-scale=2"]).views[0].camera.K
    np.testing.assert_allclose(scaled, [[2 * K[0, 0], 2 * K[0, 1], K[0, 2]], [0, 2 * K[1, 1], K[1, 2]], [0, 0, 1]])
    np.testing.assert_allclose(apply_fixes(SCENE, ["principal-point=center"]).views[0].camera.K[:2, 2], [48, 32])
    np.testing.assert_allclose(
        apply_fixes(SCENE, ["swap-focal-lengths"]).views[0].camera.K[[0, 1], [0, 1]], [K[1, 1], K[0, 0]]
    )


def test_quaternions_of_any_rotation() -> None:
    rng = np.random.default_rng(0)
    halves = [np.diag(signs) for signs in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])]  # turns by 180 degrees
    drawn = rotation_from_quaternion(rng.normal(size=(200, 4)))
    for R in [np.eye(3), *map(np.array, halves), *drawn]:
        assert rotation_angle_deg(rotation_from_quaternion(quaternion_from_rotation(R)).T @ R) < 1e-5


def test_an_order_off_by_one_loses_a_view_and_says_so() -> None:
    fixed = apply_fixes(SCENE, ["order=+1"])
    assert [view.name for view in fixed.views] == [f"{i}.png" for i in range(5)]
    for i, view in enumerate(fixed.views):
        np.testing.assert_array_equal(view.cam_from_world, SCENE.views[i + 1].cam_from_world)
    assert fixed.dropped[0][0] == "5.png"


def test_natural_order_is_that_of_numbers() -> None:
    """Images come sorted by letters (1, 10, 2), the rows of a list in the order of time (1, 2, 10)."""
    names = sorted(f"frame{i}.png" for i in range(1, 13))
    sound = scene_of(names)
    rows = sorted(range(12), key=lambda i: int(names[i][5:-4]))  # row k of the list is of image rows[k]
    broken = with_order(sound, rows)
    fixed = apply_fixes(broken, ["order=natural"])
    for a, b in zip(sound.views, fixed.views, strict=True):
        np.testing.assert_array_equal(a.cam_from_world, b.cam_from_world)
    assert natural_order(SCENE) == list(range(6))


def test_a_camera_file_of_another_size_goes_to_the_image_with_its_lens(tmp_path: Path) -> None:
    Image.new("RGB", (320, 240)).save(tmp_path / "a.png")
    lens = Lens(model="SIMPLE_RADIAL", width=640, height=480, params=(500.0, 320.0, 240.0, 0.1))
    view = View(
        name="a.png",
        image=ImageSource(path=tmp_path / "a.png", lens=lens),
        camera=pinhole_camera(lens),
        cam_from_world=np.eye(4),
    )
    (fixed,) = apply_fixes(Scene(root=tmp_path, views=[view]), ["k-size"]).views
    assert (fixed.image.lens.width, fixed.image.lens.height, fixed.image.lens.params) == (
        320,
        240,
        (250.0, 160.0, 120.0, 0.1),
    )
    np.testing.assert_allclose(fixed.camera.K[0, 0], view.camera.K[0, 0] / 2, rtol=0.02)


def test_dropping_a_view_keeps_the_points_of_the_others() -> None:
    points, visible = np.zeros((6, 3)), tuple(np.array([i]) for i in range(6))
    with_points = Scene(root=Path("x"), views=SCENE.views, points_in_world=points, visible=visible)
    fixed = apply_fixes(with_points, ["drop=2.png", "drop=0.png"])
    assert [int(own[0]) for own in fixed.visible] == [1, 3, 4, 5]
    assert [name for name, _ in fixed.dropped] == ["2.png", "0.png"]


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        ("world-from-cm", "opengl-axes"),
        ("world-from-cam=1", "takes no value"),
        ("k-size=640", "WIDTHxHEIGHT"),
        ("k-size=0x480", "positive"),
        ("principal-point", "center"),
        ("principal-point=1,2,3", "DX,DY"),
        ("focal-scale=-1", "positive"),
        ("translation-scale=x", "factor"),
        ("order=backwards", "reversed"),
        ("order=+9", "only 6"),
        ("drop=nobody.png", "nobody.png"),
        ("drop", "which view"),
        ("quaternion-xyzw=1", "world-from-cam"),
    ],
)
def test_what_is_not_understood_is_said(fix: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        apply_fixes(SCENE, [fix])


def test_every_fix_says_what_it_does() -> None:
    assert all(fix.does for fix in FIXES.values())
