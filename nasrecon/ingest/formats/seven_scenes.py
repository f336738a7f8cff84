"""7-Scenes: a folder with one transform file per image.

``frame-N.color.png|jpg``, ``frame-N.pose.txt`` (4x4 world_from_cam, metres). K of the colour camera from
``camera-intrinsics-color.txt`` where there is one, else from ``camera-intrinsics.txt``. Pixel centres: half-pixel; the
nominal principal point (320, 240) of 640x480 is then the middle of the image. (The files do not say; the nominal focal
length is off by more than that.)
"""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import Format, Frame, Request, cameras_of, convention_of, posed_views, stems
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.text import read_transform
from nasrecon.types import ImageSource, Scene, SceneOrigin

SEVEN_SCENES_K = ("camera-intrinsics-color.txt", "camera-intrinsics.txt", "intrinsics.txt")


def _find_seven_scenes(request: Request) -> Path | None:
    if not request.place.is_dir() or not request.images.is_dir():
        return None
    colors = {name.split(".color.")[0] for name in direct_images(request.images) if ".color." in name}
    return request.place if colors and stems(request.place, ".pose.txt") else None


def _read_seven_scenes(request: Request, poses: Path) -> Scene:
    camera_of, which = cameras_of(request.intrinsics or _seven_scenes_intrinsics(request, poses), first_center=0.5)
    with_pose = stems(poses, ".pose.txt")
    frames, dropped = [], []
    for name in direct_images(request.images):
        stem, is_color, _ = name.partition(".color.")
        path = poses / f"{stem}.pose.txt"
        if is_color and stem in with_pose:
            matrix = read_transform(path)
            frames.append(
                Frame(name=name, image=ImageSource(path=request.images / name), matrix=matrix, origin=str(path))
            )
        elif is_color:
            dropped.append((name, f"there is no {path.name}"))
    with_image = {frame.name.split(".color.")[0] for frame in frames}
    dropped += [
        (f"{stem}.pose.txt", "there is no colour image of that name") for stem in sorted(with_pose - with_image)
    ]
    convention = convention_of(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    origin = SceneOrigin(
        format="7-Scenes folder",
        images=f"{len(views)} images",
        poses=".pose.txt",
        intrinsics=which,
        **convention,
    )
    return Scene(root=request.images, views=views, unit="m", origin=origin, dropped=(*dropped, *lost))


def _seven_scenes_intrinsics(request: Request, poses: Path) -> Path:
    for folder in (poses, request.images, poses.parent):
        for name in SEVEN_SCENES_K:
            if (folder / name).is_file():
                return folder / name
    raise InputError(
        f"{poses}: a 7-Scenes folder, but none of {', '.join(SEVEN_SCENES_K)} is in it. Pass the intrinsics of the "
        "colour camera (a text file with a 3x3 K or fx fy cx cy). 7-Scenes comes without; its Kinect's colour camera "
        "is near 525 525 320 240, its depth camera 585 585 320 240."
    )


SEVEN_SCENES = Format(
    key="7scenes",
    name="7-Scenes folder",
    looks_for="frame-*.color.png|jpg with frame-*.pose.txt",
    find=_find_seven_scenes,
    read=_read_seven_scenes,
)
