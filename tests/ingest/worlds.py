"""A posed scene made up in memory, photographs of it, and writers that put it to disk in each layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from nasrecon.geometry import inverse, rotation_from_quaternion, transform
from nasrecon.types import Camera, ImageSource, Lens, Scene, View

REPO = Path(__file__).parents[2]
DATA = REPO / "../shared/data"


def look_at(center: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return cam_from_world (4, 4) of a camera at a place, looking at a point, y down in the world."""
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross([0.0, 1, 0], z)
    x /= np.linalg.norm(x)
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    world_from_cam[:3, 3] = center
    return inverse(world_from_cam)


def small_scene(count: int = 5, width: int = 24, height: int = 18) -> Scene:
    """Views on an arc, all different, one camera; images are not on disk yet."""
    camera = Camera(width=width, height=height, K=np.array([[20.0, 0, 12.5], [0, 21, 8.75], [0, 0, 1]]))
    rng = np.random.default_rng(5)
    views = []
    for i in range(count):
        center = np.array([0.4 * i - 0.8, 0.1 * i * i, 0.05 * i]) + rng.normal(0, 0.05, 3)
        cam_from_world = look_at(center, np.array([0.1, 0.2, 3.0]))
        cam_from_world[:3] = np.vstack([_roll(10 * i) @ cam_from_world[:3]])
        name = f"{i:04d}.png"
        views.append(View(name=name, image=ImageSource(path=Path(name)), camera=camera, cam_from_world=cam_from_world))
    return Scene(root=Path(), views=views)


def _roll(angle_deg: float) -> np.ndarray:
    half = np.radians(angle_deg) / 2
    return rotation_from_quaternion(np.array([np.cos(half), 0, 0, np.sin(half)]))


def write_images(scene: Scene, folder: Path, rename=lambda name: name, size: tuple[int, int] | None = None) -> None:
    """Write noise of the camera's size for each view."""
    rng = np.random.default_rng(0)
    for view in scene.views:
        width, height = size or (view.camera.width, view.camera.height)
        path = folder / rename(view.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(path, rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def write_seven_scenes(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder, lambda name: f"frame-{name[:4]}.color.png")
    np.savetxt(folder / "camera-intrinsics.txt", np.diag([99.0, 99, 1]))
    np.savetxt(folder / "camera-intrinsics-color.txt", scene.views[0].camera.K)
    for view in scene.views:
        np.savetxt(folder / f"frame-{view.name[:4]}.pose.txt", view.world_from_cam)
    return {}


def write_demon(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder)
    np.savetxt(folder / "cam.txt", scene.views[0].camera.K)
    np.savetxt(folder / "poses.txt", [view.cam_from_world[:3].ravel() for view in scene.views])
    return {}


def write_redwood(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder / "image")
    K = scene.views[0].camera.K
    fields = {"width": 24, "height": 18, "fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2] - 0.5, "cy": K[1, 2] - 0.5}
    (folder / "camera.json").write_text(json.dumps(fields | {"pixel_center_of_first": 0.0}))
    blocks = (f"{i} {i} {i + 1}\n{_lines(view.world_from_cam)}" for i, view in enumerate(scene.views))
    (folder / "trajectory.log").write_text("".join(blocks))
    return {}


def write_tum(scene: Scene, folder: Path) -> dict:
    times = [100 + 0.5 * i for i in range(len(scene.views))]
    write_images(scene, folder / "rgb", lambda name: f"{times[int(name[:4])]:.6f}.png")
    K = scene.views[0].camera.K
    (folder / "K.txt").write_text(f"{K[0, 0]} {K[1, 1]} {K[0, 2] - 0.5} {K[1, 2] - 0.5}\n")
    (folder / "rgb.txt").write_text("# color\n" + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times))
    rows = []
    for time, view in zip(times, scene.views, strict=True):
        w, x, y, z = quaternion(view.world_from_cam[:3, :3])
        rows.append([time + 0.003, *view.center_in_world, x, y, z, w])
    np.savetxt(folder / "groundtruth.txt", rows, header="timestamp tx ty tz qx qy qz qw", fmt="%.12f")
    return {}


def write_plain_file_each(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder / "images")
    (folder / "cams").mkdir()
    np.savetxt(folder / "cams" / "K.txt", scene.views[0].camera.K)
    for view in scene.views:
        np.savetxt(folder / "cams" / f"{view.name[:4]}.txt", view.cam_from_world)
    return {"images": folder / "images", "poses": folder / "cams", "convention": "cam-from-world"}


def write_plain_one_file(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder / "images")
    np.savetxt(folder / "K4.txt", np.vstack([np.hstack([scene.views[0].camera.K, np.zeros((3, 1))]), [0, 0, 0, 1]]))
    (folder / "all.txt").write_text("".join(_lines(view.world_from_cam) for view in scene.views))
    given = {"poses": folder / "all.txt", "intrinsics": folder / "K4.txt", "convention": "world-from-cam"}
    return {"images": folder / "images", **given}


def write_plain_named_rows(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder)
    K = scene.views[0].camera.K
    (folder / "intrinsics.txt").write_text(f"# fx fy cx cy\n{K[0, 0]}, {K[1, 1]}, {K[0, 2]}, {K[1, 2]}\n")
    rows = [f"{view.name} {' '.join(map(str, view.cam_from_world[:3].ravel()))}\n" for view in reversed(scene.views)]
    (folder / "poses.txt").write_text("".join(rows))
    return {"convention": "cam-from-world"}


def write_plain_K_each(scene: Scene, folder: Path, named_rows: bool = False) -> dict:
    """A 4x4 and a K for each image: a folder of files, or one file with names."""
    write_images(scene, folder / "images")
    for name in ("poses", "K"):
        (folder / name).mkdir()
    rows = []
    for view in scene.views:
        np.savetxt(folder / "poses" / f"{view.name[:4]}.txt", view.world_from_cam)
        K = view.camera.K
        np.savetxt(folder / "K" / f"{view.name}.txt", K)
        rows.append(f"{view.name} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n")
    (folder / "Ks.txt").write_text("# name fx fy cx cy\n" + "".join(rows))
    given = {"poses": folder / "poses", "intrinsics": folder / ("Ks.txt" if named_rows else "K")}
    return {"images": folder / "images", "convention": "world-from-cam", **given}


OPENGL = np.diag([1.0, -1, -1, 1])
APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])  # what nerfstudio does to a COLMAP model's world


def write_nerfstudio(scene: Scene, folder: Path) -> dict:
    """Intrinsics at the top where all share them; the world turned, shifted and scaled as nerfstudio notes it."""
    write_images(scene, folder / "images")
    applied, scale = np.vstack([np.hstack([APPLIED[:, :3], [[0.1], [0.2], [0.3]]]), (0, 0, 0, 1)]), 0.25
    frames = []
    for view in scene.views:
        matrix = applied @ view.world_from_cam @ OPENGL
        matrix[:3, 3] *= scale
        frames.append({"file_path": f"images/{view.name}", "transform_matrix": matrix.tolist()})
    fields = {"camera_model": "OPENCV", **_transforms_K(scene.views[0]), "frames": frames}
    fields |= {"k1": 0.0, "k2": 0.0, "applied_transform": applied[:3].tolist(), "applied_scale": scale}
    (folder / "transforms.json").write_text(json.dumps(fields))
    return {}


def write_instant_ngp(scene: Scene, folder: Path) -> dict:
    """Intrinsics in every frame, some wrong ones at the top; paths without their endings."""
    write_images(scene, folder / "images")
    frames = [
        {"file_path": f"./images/{Path(view.name).stem}", "sharpness": 30.0, **_transforms_K(view)}
        | {"transform_matrix": (view.world_from_cam @ OPENGL).tolist()}
        for view in scene.views
    ]
    fields = {"camera_angle_x": 0.5, "fl_x": 1.0, "aabb_scale": 16, "scale": 0.33, "offset": [0.5, 0.5, 0.5]}
    (folder / "transforms.json").write_text(json.dumps(fields | {"frames": frames}))
    return {}


def _transforms_K(view: View) -> dict:
    K = view.camera.K
    fields = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    return fields | {"w": float(view.camera.width), "h": float(view.camera.height)}


def write_scannet(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder / "color", lambda name: f"{int(name[:4]) * 5}.png")
    for name in ("pose", "depth", "intrinsic"):
        (folder / name).mkdir()
    K = np.eye(4)
    K[:3, :3] = scene.views[0].camera.K
    K[:2, 2] -= 0.5
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", K)
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", np.eye(4))
    for view in scene.views:
        np.savetxt(folder / "pose" / f"{int(view.name[:4]) * 5}.txt", view.world_from_cam)
    return {}


def write_kitti(scene: Scene, folder: Path) -> dict:
    """The scene is what camera 2 sees, which sits 0.4 to the right of camera 0."""
    sequence = folder / "sequences" / "07"
    write_images(scene, sequence / "image_2", lambda name: f"00{name}")
    cam_from_cam0 = np.eye(4)
    cam_from_cam0[0, 3] = -0.4
    K = scene.views[0].camera.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]

    def row(matrix):
        return " ".join(f"{value:.17g}" for value in np.ravel(matrix))

    projections = {0: np.hstack([K, np.zeros((3, 1))]), 2: K @ cam_from_cam0[:3]}
    (sequence / "calib.txt").write_text("".join(f"P{i}: {row(P)}\n" for i, P in projections.items()) + "Tr: 1 0 0\n")
    (folder / "poses").mkdir()
    poses = [row((view.world_from_cam @ cam_from_cam0)[:3]) for view in scene.views]
    (folder / "poses" / "07.txt").write_text("\n".join(poses) + "\n")
    return {"images": sequence / "image_2"}


def write_mvsnet(scene: Scene, folder: Path, last_row: str = "1.5 0.01", prefix: str = "0000") -> dict:
    write_images(scene, folder / "images", lambda name: f"{prefix}{name}")
    (folder / "cams").mkdir()
    for view in scene.views:
        text = f"extrinsic\n{_lines(view.cam_from_world)}\nintrinsic\n{_lines(view.camera.K)}\n{last_row}\n"
        (folder / "cams" / f"{prefix}{view.name[:4]}_cam.txt").write_text(text)
    return {}


def write_middlebury(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder)
    rows = [
        " ".join([view.name, *(f"{value:.17g}" for value in np.concatenate(parts))])
        for view in scene.views
        for matrix in [view.cam_from_world]
        for parts in [(view.camera.K.ravel(), matrix[:3, :3].ravel(), matrix[:3, 3])]
    ]
    (folder / "dino_par.txt").write_text("\n".join([str(len(rows)), *rows]) + "\n")
    return {}


def write_strecha(scene: Scene, folder: Path) -> dict:
    write_images(scene, folder / "images")
    (folder / "cameras").mkdir()
    for view in scene.views:
        world_from_cam, center = view.world_from_cam[:3, :3], view.center_in_world[None]
        text = _lines(view.camera.K) + "0 0 0\n" + _lines(world_from_cam) + _lines(center)
        path = folder / "cameras" / f"{view.name}.camera"
        path.write_text(text + f"{view.camera.width} {view.camera.height}\n")
    return {}


def write_colmap(scene: Scene, folder: Path, ending: str = ".bin") -> dict:
    write_images(scene, folder / "images")
    write_model(scene, folder / "sparse" / "0", ending)
    return {}


def write_model(scene: Scene, folder: Path, ending: str = ".bin") -> None:
    """Write a COLMAP model; every camera of the scene (its lens, if it has one) becomes one of the model's."""
    import pycolmap

    reconstruction = pycolmap.Reconstruction()
    ids = {}
    points = np.empty((0, 3)) if scene.points_in_world is None else scene.points_in_world
    visible = scene.visible or [np.empty(0, dtype=int)] * len(scene.views)
    tracks = [pycolmap.Track() for _ in points]
    for i, view in enumerate(scene.views):
        key = view.image.lens or id(view.camera)
        if key not in ids:
            ids[key] = len(ids) + 1
            lens = view.image.lens or pinhole_lens(view.camera)
            camera = pycolmap.Camera(
                model=lens.model, width=lens.width, height=lens.height, params=list(lens.params), camera_id=ids[key]
            )
            reconstruction.add_camera_with_trivial_rig(camera)
        camera = reconstruction.cameras[ids[key]]
        in_cam = transform(view.cam_from_world, points[visible[i]])
        pixels = np.asarray(camera.img_from_cam(in_cam)).reshape(-1, 2) if len(in_cam) else np.empty((0, 2))
        image = pycolmap.Image(name=view.name, keypoints=pixels, camera_id=ids[key], image_id=i + 1)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(view.cam_from_world[:3]))
        for k, point in enumerate(visible[i]):
            tracks[point].add_element(i + 1, k)
    for point, track in zip(points, tracks, strict=True):
        reconstruction.add_point3D(point, track)
    folder.mkdir(parents=True)
    (reconstruction.write_binary if ending == ".bin" else reconstruction.write_text)(folder)


def pinhole_lens(camera: Camera) -> Lens:
    K = camera.K
    params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    return Lens(model="PINHOLE", width=camera.width, height=camera.height, params=tuple(map(float, params)))


def quaternion(R: np.ndarray) -> np.ndarray:
    """Return w x y z of a rotation whose angle is not near 180 degrees."""
    w = np.sqrt(1 + np.trace(R)) / 2
    return np.array([w, *(np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w))])


def _lines(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.17g}" for value in row) + "\n" for row in matrix)


def texture(points: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """Return grey values (...) in [0, 255] of world points (..., 3): a sum of waves with no common period."""
    rng = np.random.default_rng(11)
    directions, phases = rng.normal(size=(24, 3)) * 7, rng.uniform(0, 2 * np.pi, 24)
    waves = np.sin(points / unit @ directions.T + phases)
    return np.clip(127.5 + 40 * waves.sum(axis=-1) / np.sqrt(12), 0, 255)


def room_depth(view: View, unit: float = 1.0) -> np.ndarray:
    """Return the exact depth (H, W) of a wall (z = 4) with a slab before its right half (z = 2.5, x > 0.2)."""
    camera = view.camera
    rays = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width)))
    rays_in_world = rays @ view.cam_from_world[:3, :3]
    depth = np.full(rays.shape[:2], np.inf)
    for z, least_x in ((4.0, -np.inf), (2.5, 0.2)):
        t = (z * unit - view.center_in_world[2]) / rays_in_world[..., 2]
        hit = (t > 0) & (view.center_in_world[0] + t * rays_in_world[..., 0] > least_x * unit)
        depth = np.where(hit & (t < depth), t, depth)
    return np.where(np.isfinite(depth), depth, 0)


def photograph(view: View, unit: float = 1.0) -> np.ndarray:
    """Draw the room as a view sees it, (H, W, 3) uint8."""
    in_world = transform(view.world_from_cam, view.camera.unproject_depth(room_depth(view, unit)))
    return np.repeat(texture(in_world, unit).round().astype(np.uint8)[..., None], 3, axis=-1)


def room_scene(folder: Path, unit: float = 1.0, count: int = 6) -> Scene:
    """Write photographs of the room by cameras in a row, 160x120, in any unit, and return the scene."""
    camera = Camera(width=160, height=120, K=np.array([[140.0, 0, 80], [0, 140, 60], [0, 0, 1]]))
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    for i in range(count):
        center = np.array([0.22 * i - 0.5, 0.1 * (-1) ** i, 0.06 * i])
        cam_from_world = look_at(center, np.array([0.1 * i, 0.0, 3.5]))
        cam_from_world[:3, 3] *= unit
        path = folder / f"{i}.png"
        view = View(name=path.name, image=ImageSource(path=path), camera=camera, cam_from_world=cam_from_world)
        iio.imwrite(path, photograph(view, unit))
        views.append(view)
    return Scene(root=folder, views=views)


def in_unit(scene: Scene, unit: float) -> Scene:
    """Return a scene with its lengths multiplied."""
    views = []
    for view in scene.views:
        cam_from_world = view.cam_from_world.copy()
        cam_from_world[:3, 3] *= unit
        views.append(replace(view, cam_from_world=cam_from_world))
    points = None if scene.points_in_world is None else scene.points_in_world * unit
    return replace(scene, views=tuple(views), points_in_world=points)
