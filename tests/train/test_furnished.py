"""Worlds of CAD models: catalogues, models in metres, exact depth and normals, light, cameras that overlap."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nasrecon.errors import InputError
from nasrecon.geometry import angle_between_deg, normals_from_depth
from nasrecon.train.furnished.composer import Composer, box_uv
from nasrecon.train.furnished.credits import credits_text
from nasrecon.train.furnished.models import CATALOGUE, ModelLibrary, corner_normals, load_model, read_catalogue
from nasrecon.train.furnished.palette import Palette
from nasrecon.train.furnished.render import FAR_DEPTH, render_view
from nasrecon.train.furnished.roles import role_of
from nasrecon.train.furnished.scene import Light, Material, MeshScene, SceneBuilder, Sky, pack_pyramid
from nasrecon.train.furnished.worlds import PLACES, FurnishedWorlds
from nasrecon.train.render import Rendered
from nasrecon.train.world_files import WorldOptions, load_file, render_worlds
from nasrecon.types import Camera

CUBE = """mtllib box.mtl
v -1 0 -1
v 1 0 -1
v 1 2 -1
v -1 2 -1
v -1 0 1
v 1 0 1
v 1 2 1
v -1 2 1
usemtl wood
f 4 3 2 1
f 1 2 6 5
f 4 8 7 3
f 1 5 8 4
f 2 3 7 6
usemtl {front}
f 5 6 7 8
"""
MATERIALS = """newmtl wood
Kd 0.5 0.25 0.1
newmtl red
Kd 0.9 0.1 0.1
newmtl glass
Kd 1 1 1
d 0.2
"""
THINGS = (
    ("Table", "Living room", "Ann", "box", 120, 74, 60, "dropOnTopElevation#{i}=72"),
    ("Chair", "Living room", "Ann & Bob", "box", 45, 90, 45, ""),
    ("Vase", "Miscellaneous", "Bob", "box", 12, 25, 12, ""),
    ("Window", "Doors and windows", "Zo\\u00e9", "pane", 110, 130, 20, "elevation#{i}=85\ndoorOrWindow#{i}=true"),
    ("Cupboard", "Bedroom", "Ann", "box", 100, 150, 39, ""),
    ("Ash tree", "Exterior", "Ann", "box", 200, 400, 200, ""),
    ("Nothing", "Bedroom", "Ann", "missing", 10, 10, 10, ""),
)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one archive of boxes, as Sweet Home 3D lays them out."""
    folder = tmp_path_factory.mktemp("archives")
    inside = folder / "Shapes"
    (inside / "shapes").mkdir(parents=True)
    (inside / "shapes" / "box.mtl").write_text(MATERIALS)
    (inside / "shapes" / "box.obj").write_text(CUBE.format(front="red"))
    (inside / "shapes" / "pane.obj").write_text(CUBE.format(front="glass"))
    lines = ["# a comment", "license=Creative Commons Attribution 3.0"]
    for i, (name, category, creator, file, width, height, depth, more) in enumerate(THINGS, start=1):
        lines += [f"name#{i}={name}", f"category#{i}={category}", f"creator#{i}={creator}"]
        lines += [f"model#{i}=/shapes/{file}.obj", f"width#{i}={width}", f"height#{i}={height}", f"depth#{i}={depth}"]
        lines += more.format(i=i).splitlines()
    (inside / CATALOGUE).write_text("\n".join(lines), encoding="latin-1")
    return folder


@pytest.fixture(scope="module")
def library(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelLibrary:
    return ModelLibrary(archives, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def palette() -> Palette:
    return Palette(1, 0)


def sky(ambient: float = 1.0) -> Sky:
    return Sky(
        zenith=np.ones(3), horizon=np.ones(3), ambient=np.full(3, ambient), below=np.full(3, ambient), shelter=0.01
    )


def camera(width: int, height: int) -> torch.Tensor:
    return torch.tensor([[0.9 * width, 0, width / 2 - 1], [0, 0.9 * width, height / 2 + 2], [0, 0, 1]])


def seen(scene: MeshScene, width: int = 48, height: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Render from the origin along +z."""
    return render_view(scene, camera(width, height), torch.eye(4), (height, width))


def test_catalogues_are_read_in_metres_with_what_placing_needs(archives: Path) -> None:
    table, chair, _, window, *_ = read_catalogue(archives / "Shapes")
    assert table.size == (1.2, 0.74, 0.6) and table.top == 0.72 and chair.top < 0
    assert window.opening and window.elevation == 0.85 and window.creator == "Zoé"
    roles = [role_of(entry) for entry in read_catalogue(archives / "Shapes")]
    assert roles == ["table", "seat", "small", "opening", "furniture", "tree", "small"]


def test_models_stand_on_their_origin_in_the_catalogues_size(library: ModelLibrary) -> None:
    model = library.get(library.entries[0])
    low, high = model.vertices.min(0), model.vertices.max(0)
    np.testing.assert_allclose(low, [-0.6, -0.74, -0.3], atol=1e-6)
    np.testing.assert_allclose(high, [0.6, 0.0, 0.3], atol=1e-6)
    front = model.color[:, 0].argmax()  # the red face, at +z in the file, is at -z in a y-down frame
    assert np.allclose(model.vertices[model.faces[model.material == front]][..., 2], -0.3)
    np.testing.assert_allclose(model.color[front], np.array([0.9, 0.1, 0.1]) ** 2.2, atol=0.01)


def test_glass_is_left_out_and_files_that_cannot_be_used_are_named(archives: Path, tmp_path: Path) -> None:
    library = ModelLibrary(archives, tmp_path)
    assert [len(library.get(e).faces) for e in library.entries if e.name in ("Vase", "Window")] == [12, 10]
    assert library.get(library.entries[-1]) is None
    assert list(library.skipped) == ["Shapes: Nothing"]
    again = ModelLibrary(archives, tmp_path)
    assert (again.get(again.entries[0]).vertices == library.get(library.entries[0]).vertices).all()
    assert len(list((tmp_path / "read").glob("*.npz"))) == 3  # what was used, each size of a file once


def test_zipped_archives_are_unzipped_and_empty_folders_refused(archives: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "Shapes.sh3f", "w") as file:
        for path in (archives / "Shapes").rglob("*"):
            file.write(path, path.relative_to(archives / "Shapes"))
    library = ModelLibrary(packed, tmp_path / "cache")
    assert len(library.entries) == len(THINGS) and library.get(library.entries[0]) is not None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="sweethome3d-furniture"):
        ModelLibrary(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(InputError, match="--models"):
        render_worlds(tmp_path / "out", 1, 0, WorldOptions(kind="furnished"))
    with pytest.raises(InputError, match="primitives, furnished, mixed"):
        render_worlds(tmp_path / "out", 1, 0, WorldOptions(kind="real"))


def test_credits_name_every_creator_and_licence(library: ModelLibrary) -> None:
    text = credits_text(library)
    assert "Creative Commons Attribution 3.0" in text
    assert "Ann (5)" in text and "Bob (2)" in text and "Zoé (1)" in text


def test_normals_are_smooth_on_round_things_and_sharp_on_boxes(library: ModelLibrary) -> None:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=3)
    normals = corner_normals(np.asarray(ball.vertices), np.asarray(ball.faces)).astype(float)
    assert (normals * ball.vertices[ball.faces]).sum(-1).min() > 0.999
    box = library.get(library.entries[2])
    assert set(np.abs(box.normals.astype(float)).max(-1).ravel()) == {1.0}


def test_depth_and_normals_of_planes_and_boxes_are_exact() -> None:
    """A slanted plane behind a box: z and normal of every pixel from the equations of their planes."""
    builder = SceneBuilder()
    across, up = np.array([0.8, 0, 0.6]), np.array([0.0, -1, 0])
    builder.add_quad(np.array([0, 0, 5.0]), across * 2, up * 9, Material(), (1, 1))
    builder.add_box(np.array([0, 0, 2.0]), np.array([0.2, 0.1, 0.3]), Material(), 1.0)
    _, depth, normal = seen(builder.build([], sky()))
    K = camera(48, 32)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    ray = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
    at = ray * 1.7
    on_box = (at[..., 0].abs() < 0.2) & (at[..., 1].abs() < 0.1)
    plane = torch.tensor([0.6, 0.0, -0.8])
    z = -0.8 * 5 / (ray @ plane)
    inside = ((z[..., None] * ray - torch.tensor([0, 0, 5.0])) @ torch.tensor([0.8, 0, 0.6])).abs() < 2
    expected = torch.where(on_box, 1.7, torch.where(inside, z, FAR_DEPTH))
    assert on_box.sum() > 30 and inside.sum() > 300 and (~inside).sum() > 100
    assert ((depth / expected - 1).abs() < 1e-5).all()
    front = torch.tensor([0.0, 0, -1])
    right = torch.where((inside & ~on_box)[..., None], plane, front).permute(2, 0, 1)
    assert (normal - right).abs().max() < 1e-5


def test_pixels_at_edges_mix_what_they_cover_and_mip_levels_fade_into_the_mean() -> None:
    builder = SceneBuilder()
    black = Material(bias=np.zeros(3), glow=np.zeros(3))
    builder.add_quad([0, 0, 2.0], [9, 0, 0], [0, -9, 0], black, (1, 1))
    builder.add_quad([9 + 1.6 / 43.2, 0, 1.0], [9, 0, 0], [0, -9, 0], Material(glow=np.ones(3)), (1, 1))
    color = seen(builder.build([], sky()))[0]
    row = color[0, 16]  # the edge is at 23 + 1.6 px: between the points of column 24
    assert row[:24].max() == 0 and row[25:].min() == 1 and row[24] == 0.5
    checks = np.kron((np.indices((128, 128)).sum(0) % 2), np.ones((2, 2)))[..., None].repeat(3, -1)
    pyramid = pack_pyramid((checks * 255).astype(np.uint8))
    builder = SceneBuilder()
    builder.add_quad([0, 0, 2.0], [2, 0, 0], [0, -2, 0], Material(pyramid=pyramid), (1, 1))
    scene = builder.build([], sky())
    uv = (torch.tensor([[3, -4], [4, -4]]) + torch.tensor([0.5, -0.5])) / 256
    base = scene.base[[0, 0]]
    fine = scene.sample(base, uv, torch.zeros(2))[:, 0]
    assert {round(float(c), 3) for c in fine} == {0.0, 1.0}
    assert (scene.sample(base, uv, torch.full((2,), 3.0)) - 0.5).abs().max() < 0.01


def test_light_falls_where_nothing_is_between() -> None:
    """The floor below a lamp: dark under a plate, bright beside it, penumbra between; all dark without the lamp."""
    lamp = Light(at=np.array([0, -3.0, 4.0]), color=np.ones(3), reach=3.0, radius=0.3)
    builder = SceneBuilder()
    floor = Material(bias=np.full(3, 0.5))
    builder.add_quad([0, 1.0, 4.0], [6, 0, 0], [0, 0, 3.9], floor, (1, 1))
    builder.add_quad([0, -1.0, 4.0], [0.5, 0, 0], [0, 0, 0.5], floor, (1, 1))
    color, depth, _ = seen(builder.build([lamp], sky(0.0)), 96, 64)
    K = camera(96, 64)
    row = int(K[1, 1] / 4 + K[1, 2])  # looks at the floor 4 m ahead
    x = (torch.arange(96) + 0.5 - K[0, 2]) / K[0, 0] * depth[row]
    lit = color[0, row]
    assert lit[x.abs() < 0.5].max() < 1e-6 and lit[(x.abs() > 1.6) & (x.abs() < 2)].min() > 0.1
    assert ((lit[x.abs() < 1.6] > 0.01) & (lit[x.abs() < 1.6] < 0.1)).any()
    assert seen(builder.build([], sky(0.0)), 96, 64)[0][:, row].max() == 0


@pytest.fixture(scope="module", params=list(PLACES))
def rendered(request: pytest.FixtureRequest, library: ModelLibrary, palette: Palette) -> Rendered:
    worlds = FurnishedWorlds(library=library, palette=palette, place=request.param)
    made = [worlds.render(seed, 3, (48, 64)) for seed in (1, 2, 3)]
    return Rendered(**{name: torch.cat([getattr(r, name) for r in made]) for name in Rendered.__dataclass_fields__})


def test_views_overlap_and_agree_on_where_surfaces_are(rendered: Rendered) -> None:
    for b in range(len(rendered.depth)):
        agree = [_share_seen(rendered, b, v) for v in (1, 2)]
        assert min(agree) > 0.25, (b, agree)  # proposals are accepted from 0.35 on a coarse grid of rays


def _share_seen(rendered: Rendered, b: int, v: int) -> float:
    """Share of the first view's pixels whose surface another view sees, within the depths of the 3x3 pixels there."""
    H, W = rendered.depth.shape[-2:]
    cameras = [Camera(width=W, height=H, K=rendered.K[b, i].double().numpy()) for i in (0, v)]
    poses = rendered.cam_from_world[b].double().numpy()
    move = poses[v] @ np.linalg.inv(poses[0])
    depth, other = rendered.depth[b, 0].double().numpy(), rendered.depth[b, v].double().numpy()
    there = cameras[0].unproject_depth(depth) @ move[:3, :3].T + move[:3, 3]
    pixel = np.nan_to_num(cameras[1].project(there), nan=-1)
    z = there[..., 2]
    inside = (z > 0) & (pixel > 1).all(-1) & (pixel < (W - 1, H - 1)).all(-1)
    x, y = np.where(inside, pixel[..., 0], 2).astype(int), np.where(inside, pixel[..., 1], 2).astype(int)
    near = np.stack([other[(y + j).clip(0, H - 1), (x + i).clip(0, W - 1)] for j in (-1, 0, 1) for i in (-1, 0, 1)])
    return float((inside & (z > near.min(0) * 0.97) & (z < near.max(0) * 1.03)).mean())


def test_normals_are_those_of_the_depth(rendered: Rendered) -> None:
    H, W = rendered.depth.shape[-2:]
    for b in range(len(rendered.depth)):
        camera_of = Camera(width=W, height=H, K=rendered.K[b, 1].double().numpy())
        depth, true = rendered.depth[b, 1].double().numpy(), rendered.normal[b, 1].permute(1, 2, 0).numpy()
        apart = angle_between_deg(normals_from_depth(depth, camera_of), true)[depth < FAR_DEPTH]
        assert np.nanmedian(apart) < 1.0
        rays = camera_of.unproject_depth(np.ones((H, W)))
        assert (np.sum(true * rays, axis=-1) < 1e-3).all()


def test_cameras_vary_in_focal_length_baseline_and_roll(library: ModelLibrary, palette: Palette) -> None:
    worlds = FurnishedWorlds(library=library, palette=palette, place="heap")
    made = [worlds.render(seed, 2, (24, 32)) for seed in range(12)]
    focal = np.array([r.K[0, 0, 0, 0].item() / 32 for r in made])
    assert focal.min() > 0.59 and focal.max() < 1.61 and focal.max() > 1.4 * focal.min()
    base = []
    for r in made:
        center = torch.linalg.inv(r.cam_from_world[0].double())[:, :3, 3]
        near = r.depth[0, 0]
        base.append(float((center[1] - center[0]).norm() / near[near < FAR_DEPTH].median()))
    assert min(base) > 0.01 and max(base) < 0.7 and max(base) > 3 * min(base), base
    turned = [math.degrees(math.acos(min(1, ((p[1, :3, :3] @ p[0, :3, :3].T).trace().item() - 1) / 2)))
              for p in (r.cam_from_world[0] for r in made)]  # fmt: skip
    assert max(turned) < 45 and max(turned) > 5


def test_a_seed_says_everything(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = WorldOptions(
        kind="mixed", width=48, height=32, views=2, worlds_per_file=2, drawn_textures=9, models=archives
    )  # fmt: skip
    first = render_worlds(tmp_path / "a", 2, 5, options)
    again = render_worlds(tmp_path / "b", 1, 5, options, first=1)
    one, other, different = load_file(first[1]), load_file(again[0]), load_file(first[0])
    for name in Rendered.__dataclass_fields__:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(one.images, different.images)
    assert one.images.shape == (2, 2, 3, 32, 48) and one.normal.dtype == torch.int8


def test_things_stand_where_nothing_else_does(library: ModelLibrary, palette: Palette) -> None:
    composer = Composer(np.random.default_rng(0), library, palette)
    entry, model = composer.pick("table")
    box = composer.place(entry, model, np.array([1.0, 0, 2.0]), yaw=math.pi / 2)
    np.testing.assert_allclose(box.high - box.low, [0.6, 0.74, 1.2], atol=1e-5)
    assert not composer.free(composer.box_of(model, np.array([1.3, 0, 2.0]), 0.0))
    assert composer.free(composer.box_of(model, np.array([2.0, 0, 2.0]), 0.0))
    uv = box_uv(load_model(entry), 2.0)
    assert np.ptp(uv.reshape(-1, 2), axis=0).max() == pytest.approx(2.4, abs=1e-5)  # two repeats a metre
