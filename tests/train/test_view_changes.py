"""Other light, paint and framing: the geometry stays exact, and all views show the same surfaces."""

from __future__ import annotations

import pytest
import torch

from nasrecon.nas.volume import pixel_rays, plane_sample_grid, sample_on_planes
from nasrecon.train.view_changes import (
    PosedViews,
    _mirrored,
    _on_sphere,
    change_views,
    cut_apart,
    draw_window,
    polished,
    reframed,
    repainted,
)
from nasrecon.train.world_files import WorldOptions, load_file, render_worlds

SIZE = (64, 96)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> list[PosedViews]:
    folder = tmp_path_factory.mktemp("worlds")
    options = WorldOptions(width=SIZE[1], height=SIZE[0], views=3, worlds_per_file=6, drawn_textures=6)
    rendered = load_file(render_worlds(folder, 1, 5, options)[0])
    made = []
    for i in range(6):
        K = rendered.K[i].clone()
        K[:, :2, 2] -= 0.5
        made.append(
            PosedViews(
                images=rendered.images[i].float() / 255,
                K=K,
                cam_from_world=rendered.cam_from_world[i],
                depth=rendered.depth[i],
                normal=rendered.normal[i].float() / 127,
            )
        )
    return made


def warped(views: PosedViews, image: torch.Tensor, v: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (H, W) of an image (H, W) of view v at the points that the reference sees, and where it has them."""
    known = views.depth[0] > 0
    inv_depth = torch.where(known, 1 / views.depth[0].clamp_min(1e-6), 1.0).flatten()[None, None]
    src_from_ref = views.cam_from_world[v] @ torch.linalg.inv(views.cam_from_world[0])
    grid, inside = plane_sample_grid(views.K[:1], views.K[v : v + 1], src_from_ref[None], inv_depth, image.shape)
    values = sample_on_planes(image[None, None], grid)[0, 0].reshape(image.shape)
    return values, known & inside[0].reshape(image.shape)


def depth_apart(views: PosedViews, v: int) -> torch.Tensor:
    """How far (share, H, W) the depth of view v is from that of the point that the reference sees; inf: not seen."""
    seen, inside = warped(views, views.depth[v], v)
    transform = views.cam_from_world[v] @ torch.linalg.inv(views.cam_from_world[0])
    points = pixel_rays(views.K[:1], *seen.shape).view(3, *seen.shape) * views.depth[0]
    depth = (transform[2, :3, None, None] * points).sum(dim=0) + transform[2, 3]
    return torch.where(inside, (seen / depth - 1).abs(), torch.inf)


def test_a_frame_keeps_the_geometry(worlds: list[PosedViews]) -> None:
    """Cameras stay where they are; two views agree on the depths and normals of what both see."""
    for seed, views in enumerate(worlds):
        made = reframed(views, torch.Generator().manual_seed(seed))
        assert made.images.shape == views.images.shape and not torch.equal(made.images, views.images)
        torch.testing.assert_close(
            torch.linalg.inv(made.cam_from_world)[:, :3, 3], torch.linalg.inv(views.cam_from_world)[:, :3, 3]
        )
        for v in (1, 2):
            apart = depth_apart(made, v)
            assert apart[apart.isfinite()].quantile(0.25) < 2e-4
            turned = torch.einsum("ji,jhw->ihw", made.cam_from_world[v, :3, :3], made.normal[v])
            here = torch.einsum("ji,jhw->ihw", made.cam_from_world[0, :3, :3], made.normal[0])
            seen = torch.stack([warped(made, part, v)[0] for part in turned])
            assert (seen * here).sum(dim=0)[apart < 0.01].median() > 0.99


def test_paint_and_light_are_the_same_in_all_views(worlds: list[PosedViews]) -> None:
    changed = 0
    for seed, views in enumerate(worlds * 3):
        made = repainted(views, torch.Generator().manual_seed(seed))
        factor = (made.images / views.images.clamp_min(1e-3)).mean(dim=1)
        unclamped = ((made.images < 0.99) & (views.images > 0.05)).all(dim=1)
        if factor[0].std() < 0.02:
            continue
        changed += 1
        for v in (1, 2):
            there, _ = warped(views, factor[v], v)
            counted = (depth_apart(views, v) < 0.01) & unclamped[0] & (warped(views, unclamped[v].float(), v)[0] > 0.99)
            if counted.sum() > 200:
                assert (there / factor[0] - 1)[counted].abs().median() < 0.05
    assert changed > 6


def test_nothing_changes_where_no_depth_is_known(worlds: list[PosedViews]) -> None:
    unknown = PosedViews(**{**vars(worlds[0]), "depth": torch.zeros_like(worlds[0].depth)})
    for change in (repainted, polished):
        assert torch.equal(change(unknown, torch.Generator().manual_seed(1)).images, unknown.images)


def test_the_same_seed_changes_views_in_the_same_way(worlds: list[PosedViews]) -> None:
    first, again = (change_views(worlds[1], torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.images, again.images) and torch.equal(first.K, again.K)


def test_reflections_follow_the_view(worlds: list[PosedViews]) -> None:
    """What a surface reflects differs between views, where paint is the same; the rest of an image stays as it is."""
    moved = 0
    for seed, views in enumerate(worlds * 3):
        made = polished(views, torch.Generator().manual_seed(seed))
        added = (made.images - views.images).mean(dim=1)
        assert made.images.min() >= 0 and made.images.max() <= 1 and not added[views.depth == 0].any()
        there, _ = warped(views, added[1], 1)
        glossy = (depth_apart(views, 1) < 0.01) & (added[0].abs() > 0.02)
        if glossy.sum() > 50:
            moved += bool((there - added[0])[glossy].abs().median() > 0.1 * added[0][glossy].abs().median())
    assert moved > 3


def test_a_mirror_turns_only_the_part_of_a_ray_along_its_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    along, normal = (torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=-1) for _ in "ab")
    turned = _mirrored(along, normal)
    dot = lambda vectors: (vectors * normal).sum(dim=-1, keepdim=True)  # noqa: E731
    torch.testing.assert_close(dot(turned), -dot(along))
    torch.testing.assert_close(turned - dot(turned) * normal, along - dot(along) * normal)


def test_a_reflected_ray_meets_the_sphere_ahead_of_its_start() -> None:
    generator = torch.Generator().manual_seed(0)
    along, start = (torch.nn.functional.normalize(torch.randn(2, 5, 6, 3, generator=generator), dim=-1) for _ in "ab")
    start = start * 0.5
    met = _on_sphere(start * 3**0.5, along)
    torch.testing.assert_close(met.norm(dim=-1), torch.ones(2, 5, 6))
    ahead = met - start
    torch.testing.assert_close(torch.nn.functional.normalize(ahead, dim=-1), along, atol=1e-4, rtol=1e-4)


def test_windows_keep_the_geometry_and_overlap_less(worlds: list[PosedViews]) -> None:
    views, generator = worlds[0], torch.Generator().manual_seed(3)
    size = draw_window(480, 640, generator)
    assert size[0] % 16 == size[1] % 16 == 0 and 128 <= size[0] < 480 and 160 <= size[1] < 640
    outside = {}
    for name, made in (("whole", views), ("windows", cut_apart(views, (48, 64), generator))):
        apart = depth_apart(made, 1)
        assert apart[apart.isfinite()].quantile(0.25) < 2e-3
        outside[name] = float((apart.isinf() & (made.depth[0] > 0)).float().mean())
    assert made.images.shape == (3, 3, 48, 64) and made.normal.shape == (3, 3, 48, 64)
    assert outside["windows"] > outside["whole"]


def test_a_window_of_the_reference_holds_a_depth(worlds: list[PosedViews]) -> None:
    """Where nearly all is sky, the window lies around what is not."""
    depth = torch.zeros_like(worlds[0].depth)
    depth[0, 60, 93] = 2.0
    views = PosedViews(**{**vars(worlds[0]), "depth": depth})
    for seed in range(20):
        assert (cut_apart(views, (16, 32), torch.Generator().manual_seed(seed)).depth[0] > 0).sum() == 1
