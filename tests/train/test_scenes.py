"""Procedural worlds: what is called exact must be, seen from every view, and a seed must say everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nasrecon.geometry import angle_between_deg, normals_from_depth
from nasrecon.train.cameras import draw_rig
from nasrecon.train.datasets import BatchOptions, WorldFiles, _disturb, draw_batch
from nasrecon.train.meshes import cast_meshes, draw_meshes, face_normals
from nasrecon.train.render import Rendered, render_views
from nasrecon.train.sensor import blur_views, jpeg
from nasrecon.train.textures import KINDS, SIDE, TextureBank, draw_texture
from nasrecon.train.world_files import WorldOptions, load_file, render_worlds
from nasrecon.train.worlds import draw_worlds
from nasrecon.types import Camera

H, W = 96, 128


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return TextureBank.make(12, torch.Generator().manual_seed(0), "cpu")


@pytest.fixture(scope="module")
def rendered(bank: TextureBank) -> Rendered:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        return render_views(draw_worlds(6, bank, generator, floating=0.4), bank, 3, (H, W), generator)


def test_views_agree_on_where_surfaces_are(rendered: Rendered) -> None:
    """A surface point of one view is never in front of what another view sees there, and mostly is what it sees."""
    agree = []
    for b in range(len(rendered.depth)):
        cameras = [Camera(width=W, height=H, K=rendered.K[b, v].double().numpy()) for v in (0, 1)]
        depth, other = (rendered.depth[b, v].double().numpy() for v in (0, 1))
        other_from_ref = (
            (rendered.cam_from_world[b, 1] @ torch.linalg.inv(rendered.cam_from_world[b, 0])).double().numpy()
        )
        in_other = cameras[0].unproject_depth(depth) @ other_from_ref[:3, :3].T + other_from_ref[:3, 3]
        pixel = np.nan_to_num(cameras[1].project(in_other), nan=-1)
        seen = (in_other[..., 2] > 0) & (pixel > 1).all(-1) & (pixel < (W - 1, H - 1)).all(-1)
        x, y = np.where(seen, pixel[..., 0], 2).astype(int), np.where(seen, pixel[..., 1], 2).astype(int)
        # The farthest and nearest of the 3x3 pixels around: a point between pixel centres lies between them.
        around = np.stack(
            [other[(y + dy).clip(0, H - 1), (x + dx).clip(0, W - 1)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        )
        z = in_other[..., 2]
        in_front = seen & (z < around.min(0) * 0.99)
        assert in_front.sum() <= 0.002 * seen.sum()  # silhouettes thinner than a pixel
        agree.append((np.abs(z / around - 1).min(0) < 0.02)[seen].mean() if seen.sum() > 500 else np.nan)
    assert np.nanmedian(agree) > 0.7  # the rest is hidden from one of them


def test_cameras_step_aside_and_ahead_level_and_rolled(bank: TextureBank) -> None:
    """Two-view sets have all of these: nothing moves about the epipole, and what is rolled looks different."""
    generator = torch.Generator().manual_seed(3)
    worlds = draw_worlds(48, bank, generator)
    K, world_from_cam = draw_rig(worlds, 3, (96, 128), generator)
    ref_from_src = torch.linalg.inv(world_from_cam[:, :1]) @ world_from_cam[:, 1:]
    center = ref_from_src[..., :3, 3].reshape(-1, 3)
    epipole = (K[:, :1] @ ref_from_src[..., :3, 3:])[..., 0].reshape(-1, 3)
    epipole = epipole[:, :2] / epipole[:, 2:]
    inside = ((epipole >= 0) & (epipole <= torch.tensor([128, 96]))).all(dim=1).float().mean()
    assert 0.03 < inside < 0.3
    aside = center[:, :2].norm(dim=1) > 2 * center[:, 2].abs()
    assert 0.25 < aside.float().mean() < 0.7
    roll = torch.atan2(ref_from_src[..., 1, 0], ref_from_src[..., 0, 0]).abs().flatten()
    assert 0.08 < (roll > 0.3).float().mean() < 0.4 and (roll < 0.15).float().mean() > 0.5


def test_floating_worlds_are_deep_and_others_stay_as_they_are(bank: TextureBank) -> None:
    """Things in the air before a backdrop: depths of one image differ many times more than in rooms and fields."""
    ratio = {}
    for share in (0.0, 1.0):
        generator = torch.Generator().manual_seed(8)
        worlds = draw_worlds(24, bank, generator, floating=share)
        assert worlds.floating.float().mean() == share
        generator = torch.Generator().manual_seed(8)
        depth = render_views(worlds, bank, 1, (24, 32), generator).depth.flatten(1)
        ratio[share] = (depth.quantile(0.95, dim=1) / depth.quantile(0.05, dim=1)).median()
        assert (depth < 1e4).all()
    assert ratio[1.0] > 1.5 * ratio[0.0], ratio
    some = draw_worlds(64, bank, torch.Generator().manual_seed(8), floating=0.2).floating.float().mean()
    assert 0.05 < some < 0.4


def test_normals_are_those_of_the_depth(rendered: Rendered) -> None:
    for b in range(len(rendered.depth)):
        camera = Camera(width=W, height=H, K=rendered.K[b, 1].double().numpy())
        found = normals_from_depth(rendered.depth[b, 1].double().numpy(), camera)
        true = rendered.normal[b, 1].permute(1, 2, 0).numpy()
        apart = angle_between_deg(found, true)
        assert np.median(apart) < 0.5  # float32 depth; edges and round things are few
        rays = camera.unproject_depth(np.ones((H, W)))
        assert (np.sum(true * rays, axis=-1) < 0).all()


def test_a_seed_says_everything(tmp_path, bank: TextureBank) -> None:
    options = WorldOptions(width=48, height=32, views=2, worlds_per_file=1, drawn_textures=4)
    first = render_worlds(tmp_path / "a", 2, 5, options)
    again = render_worlds(tmp_path / "b", 1, 5, options, first=1)
    one, other, different = load_file(first[1]), load_file(again[0]), load_file(first[0])
    for name in Rendered.__dataclass_fields__:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(one.images, different.images)


def test_meshes_are_hit_where_open3d_hits_them() -> None:
    """Distances and faces of rays against free forms equal those of another ray caster; forms are closed."""
    import open3d as o3d
    import trimesh

    generator = torch.Generator().manual_seed(0)
    triangles = draw_meshes(3, generator)
    origin = torch.randn(1500, 3, generator=generator) * 0.3 + torch.tensor([0, 0, -3.0])
    direction = torch.randn(1500, 3, generator=generator) * 0.2 + torch.tensor([0, 0, 1.0])
    for m, mesh in enumerate(triangles):
        assert trimesh.Trimesh(**trimesh.triangles.to_kwargs(mesh.numpy())).is_watertight
        scene = o3d.t.geometry.RaycastingScene()
        corners = mesh.reshape(-1, 3).numpy()
        scene.add_triangles(corners, np.arange(len(corners), dtype=np.uint32).reshape(-1, 3))
        expected = scene.cast_rays(torch.cat([origin, direction], dim=1).numpy())
        found = cast_meshes(triangles[None, m : m + 1], origin.T[None, None], direction.T[None, None])[0, 0]
        hit = np.isfinite(expected["t_hit"].numpy())
        assert hit.sum() > 200 and ((found < 100).numpy() == hit).all()
        assert np.abs(found.numpy() - expected["t_hit"].numpy())[hit].max() < 1e-4
        point = (origin + found[:, None] * direction)[hit]
        normal = face_normals(triangles, torch.full((len(point),), m), point).numpy()
        apart = angle_between_deg(normal, expected["primitive_normals"].numpy()[hit])
        assert np.minimum(apart, 180 - apart).max() < 0.5  # the other caster's faces have no outer side
        assert ((normal * point.numpy()).sum(-1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_textures_repeat_without_a_seam(kind: str) -> None:
    texture = draw_texture(torch.Generator().manual_seed(2), kind)
    assert texture.shape == (3, SIDE, SIDE) and texture.min() >= 0 and texture.max() <= 1
    for axis in (1, 2):
        steps = (texture - texture.roll(1, dims=axis)).abs().mean(dim=(0, 3 - axis))
        # The step over the seam is one step among others; random marks differ by a third.
        assert steps[0] <= 1.4 * steps[1:].max() + 0.005


def test_far_textures_fade_into_their_mean(bank: TextureBank) -> None:
    index = torch.arange(bank.count)
    far = bank.sample(
        index, torch.rand(bank.count, 2, generator=torch.Generator().manual_seed(0)), torch.full((bank.count,), 100.0)
    )
    assert (far - bank.mean).abs().max() < 0.12  # the last level is 2x2


def test_jpeg_leaves_alone_at_strength_zero_and_coarsens_else() -> None:
    image = torch.rand(1, 4, 3, 20, 27, generator=torch.Generator().manual_seed(0))
    kept = jpeg(image, torch.zeros(1, 4), torch.Generator().manual_seed(1))
    assert (kept - image).abs().max() < 1e-3
    coarse = jpeg(image, torch.ones(1, 4), torch.Generator().manual_seed(1))
    assert (coarse - image).abs().amax(dim=(0, 2, 3, 4)).max() > 0.02


def test_shaken_views_are_blurred_each_in_its_way_and_stay_in_place() -> None:
    """A bright dot stays in place and as bright, spread by some px; scenes not chosen stay to the last bit."""
    image = torch.zeros(40, 2, 3, 41, 41)
    image[..., 20, 20] = 100.0
    same = blur_views(image, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(same, image)
    some = blur_views(image, 0.4, torch.Generator().manual_seed(1))
    touched = (some != image).flatten(1).any(dim=1)
    assert 0.15 < touched.float().mean() < 0.65

    shaken = blur_views(image, 1.0, torch.Generator().manual_seed(1)).mean(dim=2) / 100
    light = torch.where(shaken > 2e-3, shaken, 0)  # without the noise
    total = light.sum((-1, -2))
    assert total.min() > 0.9 and total.max() < 1.01
    at = torch.arange(41.0) - 20
    x, y = (light.sum(-2) @ at) / total, (light.sum(-1) @ at) / total
    assert torch.stack([x, y]).abs().max() < 0.15
    spread = ((light.sum(-2) @ at**2 + light.sum(-1) @ at**2) / total).sqrt()
    assert spread.min() > 0.2 and spread.max() > 1.8 and spread.max() < 4.5
    assert ((spread[:, 0] / spread[:, 1]).log().abs() > 0.02).float().mean() > 0.8


def test_batches_carry_consistent_geometry(tmp_path) -> None:
    """Sampling a source at the true depth shows the reference, for mirrors and every unit; a wrong depth less."""
    from nasrecon.nas.volume import plane_sample_grid, sample_on_planes

    paths = render_worlds(
        tmp_path, 1, 8, WorldOptions(width=W, height=H, views=3, worlds_per_file=6, drawn_textures=12)
    )
    options = BatchOptions(sources=2, pose_error=0.0, bad_poses=0.0, blurred=0.0)
    wins = []
    for seed in range(4):
        batch = draw_batch(load_file(paths[0]), torch.arange(6), options, torch.Generator().manual_seed(seed))
        s = batch.stereo

        def alike(factor: float, batch=batch, s=s) -> torch.Tensor:
            """Correlation of each reference with its first source, warped at so many times the true depth."""
            inv_depth = (1 / (batch.depth * factor)).flatten(1)[:, None]
            grid, inside = plane_sample_grid(
                s.ref_K, s.src_K[:, 0], s.src_from_ref[:, 0], inv_depth, batch.depth.shape[-2:]
            )
            warped = sample_on_planes(s.src_images[:, 0], grid)[:, :, 0].mean(dim=1)
            pairs = zip(s.ref_image.mean(dim=1), warped, inside[:, 0], strict=True)
            return torch.stack([torch.corrcoef(torch.stack([a[m], b[m]]))[0, 1] for a, b, m in pairs])

        wins.append(alike(1.0) > torch.maximum(alike(1.5), alike(0.67)))
    assert torch.cat(wins).float().mean() > 0.75  # some sources see little of the reference


def test_the_nearest_depth_becomes_the_unit(tmp_path) -> None:
    """Planes without end and no guess: the nearest depth, but for a thousandth of the pixels, becomes 1."""
    paths = render_worlds(tmp_path, 1, 8, WorldOptions(width=W, height=H, views=2, worlds_per_file=4, drawn_textures=4))
    options = BatchOptions(min_depth_low=1.0, planes=1_000_000)
    batch = draw_batch(load_file(paths[0]), torch.arange(4), options, torch.Generator().manual_seed(0))
    share_nearer = (batch.depth < 1).flatten(1).float().mean(dim=1)
    assert (share_nearer < 0.0011).all() and (batch.depth.flatten(1).amin(dim=1) > 0.3).all()


def test_a_batch_has_as_many_items_as_its_pixels_allow(tmp_path) -> None:
    render_worlds(tmp_path, 1, 8, WorldOptions(width=W, height=H, views=2, worlds_per_file=4, drawn_textures=4))
    for items in (1, 3):
        worlds = WorldFiles(tmp_path, BatchOptions(pixels=items * W * H + 7))
        assert worlds.draw(1).depth.shape == (items, H // 16 * 16, W // 16 * 16)


def test_poses_are_off_as_often_and_as_far_as_asked() -> None:
    src_from_ref = torch.eye(4).repeat(4000, 1, 1, 1)
    src_from_ref[..., 0, 3] = 2.0
    options = BatchOptions(bad_poses=0.4, pose_error=0.001)
    found = _disturb(src_from_ref, options, torch.Generator().manual_seed(0))
    angle = (found[..., :3, :3] - found[..., :3, :3].mT).flatten(-2).norm(dim=-1).squeeze() / math.sqrt(8)
    moved = (found - src_from_ref)[..., :3, 3].norm(dim=-1).squeeze() / 2
    assert abs((moved > 0).float().mean() - 0.4) < 0.03
    assert abs((angle == 0).float().mean() - 0.6 * 0.67) < 0.03
    assert 0.01 < angle.max() < 0.07 and 0.1 < moved.max() < 1.0
    exact = _disturb(src_from_ref, BatchOptions(bad_poses=0.0, pose_error=0.0), torch.Generator().manual_seed(0))
    assert torch.equal(exact, src_from_ref)


def test_an_empty_folder_of_worlds_is_an_error(tmp_path) -> None:
    from nasrecon.errors import InputError

    with pytest.raises(InputError, match="nasrecon train render"):
        WorldFiles(tmp_path, BatchOptions())
