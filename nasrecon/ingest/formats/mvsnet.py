"""MVSNet's camera files: ``cams/00000000_cam.txt``, ``images/00000000.jpg``, ``pair.txt``.

A camera file has the word ``extrinsic`` and a 4x4 cam_from_world, the word ``intrinsic`` and K, and a last row in one
of two dialects: ``depth_min interval`` (MVSNet), or ``depth_min interval num depth_max`` (R-MVSNet, BlendedMVS). In the
first the farthest depth is that of MVSNet's own default, 192 intervals beyond depth_min. Pixel centres: half-pixel
(MVSNet's converter copies cx and cy from COLMAP). ``pair.txt``: the number of views, then for each its number and a
row ``n id score id score ...``, best first; numbers are those of the camera files. Unit unknown.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import Format, Frame, Request, convention_of, posed_views
from nasrecon.ingest.images import direct_images, image_size
from nasrecon.ingest.text import Intrinsics, is_number, numbers, rows
from nasrecon.types import Hints, ImageSource, Scene, SceneOrigin

ENDING = "_cam.txt"
PLACES = ("", "cams", "Cameras", "cams_1")
IMAGE_PLACES = ("images", "blended_images", "")
DEFAULT_INTERVALS = 192


def _find(request: Request) -> Path | None:
    if not request.place.is_dir():
        return None
    places = (request.place / name for name in PLACES)
    return next((place for place in places if place.is_dir() and any(place.glob(f"*{ENDING}"))), None)


def _read(request: Request, cams: Path) -> Scene:
    if request.intrinsics is not None:
        raise InputError(f"{cams}: MVSNet's camera files have their own intrinsics; leave {request.intrinsics} out")
    root = _image_folder(request)
    names = _by_stem(root)
    files = {path.name.removesuffix(ENDING): path for path in sorted(cams.glob(f"*{ENDING}"))}
    dropped = [(files[stem].name, "there is no image of that name") for stem in sorted(files.keys() - names.keys())]
    dropped += [(names[stem], f"there is no {stem}{ENDING}") for stem in sorted(names.keys() - files.keys())]
    stems = sorted(files.keys() & names.keys())
    pairs, pairs_file, notes = _pairs(request, cams, {stem: names[stem] for stem in stems})
    frames, intrinsics, no_range, ranges = [], {}, [], {}
    for stem in stems:
        matrix, intrinsics_of_view, depth_range, why = _read_camera(files[stem])
        name = names[stem]
        intrinsics[name] = intrinsics_of_view
        no_range += [why] if why else []
        frames.append(
            Frame(
                name=name,
                image=ImageSource(path=root / name),
                matrix=matrix,
                origin=str(files[stem]),
            )
        )
        if depth_range is not None:
            ranges[name] = depth_range
    convention = convention_of(request, "cam-from-world")

    def camera_of(frame):
        return (intrinsics[frame.name].camera(image_size(frame.image.path), first_center=0.5), None)

    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    names_read = {view.name for view in views}
    hints = Hints(
        sources={name: listed for name, listed in pairs.items() if name in names_read},
        depth_ranges={name: depth_range for name, depth_range in ranges.items() if name in names_read},
        sources_from=pairs_file.name if pairs_file else "",
        depth_ranges_from="depth_min and depth_max of the camera files" if ranges else "",
    )
    origin = SceneOrigin(
        format="MVSNet cams",
        images=f"{len(views)} images",
        poses=f"{cams.name}/",
        intrinsics=f"{cams.name}/",
        **convention,
        notes=(
            f"depth ranges of {len(hints.depth_ranges)}" + (f" (not of {'; '.join(no_range[:3])})" if no_range else ""),
            f"sources of {len(hints.sources)} in {pairs_file.name}" if pairs_file else "no pair.txt",
            *notes,
        ),
    )
    return Scene(
        root=root,
        views=views,
        origin=origin,
        dropped=(*dropped, *lost),
        hints=hints,
    )


def _image_folder(request: Request) -> Path:
    """Return the folder of the images: IMAGES, or a usual one in it.

    Raises:
        InputError: if there is none.
    """
    for name in IMAGE_PLACES:
        folder = request.images / name
        if folder.is_dir() and direct_images(folder):
            return folder
    raise InputError(f"{request.images}: MVSNet's camera files, but no images in it, nor in images/ or blended_images/")


def _by_stem(folder: Path) -> dict[str, str]:
    """Return the images of a folder by their names without ending, without BlendedMVS's masked copies.

    Raises:
        InputError: if two images have one name.
    """
    out: dict[str, str] = {}
    for name in direct_images(folder):
        stem = Path(name).stem
        if stem in out:
            raise InputError(f"{folder}: {out[stem]} and {name} both go with {stem}{ENDING}; keep one of them")
        if not stem.endswith("_masked"):
            out[stem] = name
    return out


def _read_camera(path: Path) -> tuple[np.ndarray, Intrinsics, tuple[float, float] | None, str]:
    """Return cam_from_world (4, 4), K, the depth range, or None and why there is none."""
    words = [word for row in rows(path) for word in row]
    lower = [word.lower() for word in words]
    values = [float(word) for word in words if is_number(word)]
    shaped = lower[:1] == ["extrinsic"] and lower[17:18] == ["intrinsic"] and len(values) == len(words) - 2
    if not shaped or len(values) not in (25, 27, 28, 29):
        content = f"found {len(words)} words, the first {' '.join(words[:5])[:60]!r}" if words else "the file is empty"
        raise InputError(
            f"{path}: expected the word extrinsic, a 4x4, the word intrinsic, a 3x3, and depth_min interval "
            f"[num depth_max]; {content}"
        )
    matrix, K, depths = np.array(values[:16]).reshape(4, 4), np.array(values[16:25]).reshape(3, 3), values[25:]
    depth_range, why = _depth_range(depths)
    return matrix, Intrinsics(path=path, K=K), depth_range, f"{path.name}: {why}" if why else ""


def _depth_range(depths: list[float]) -> tuple[tuple[float, float] | None, str]:
    """Return (near, far) of the last row, whichever dialect, or None and why."""
    if not depths:
        return None, "it has no depth_min"
    near, interval, *more = depths
    far = more[1] if len(more) == 2 else near + interval * (more[0] if more else DEFAULT_INTERVALS)
    if not (0 < near < far < np.inf):
        return None, f"depth_min {near:g} to depth_max {far:g} is no range"
    return (near, far), ""


def _pairs(
    request: Request, cams: Path, names: dict[str, str]
) -> tuple[dict[str, tuple[str, ...]], Path | None, list[str]]:
    """Return the names of the sources of each image that pair.txt lists, best first, the file, and notes.

    Without a pair.txt: ({}, None, []).

    Args:
        request, cams: where it may be: beside the camera files, above them, or in IMAGES.
        names: the image's name for each camera file's stem.
    """
    folders = dict.fromkeys((cams, cams.parent, request.place, request.images, request.images.parent))
    path = next((folder / "pair.txt" for folder in folders if (folder / "pair.txt").is_file()), None)
    if path is None:
        return {}, None, []
    name_of = {
        int(numbers_in_name[-1]): name for stem, name in names.items() if (numbers_in_name := re.findall(r"\d+", stem))
    }
    out, bad, unknown = {}, 0, []
    for ref, listed in _pair_rows(path):
        if ref not in name_of:
            unknown.append(ref)
            continue
        good = [int(i) for i in dict.fromkeys(listed) if i in name_of and i != ref]
        bad += len(listed) - len(good)
        if good:
            out[name_of[int(ref)]] = tuple(name_of[i] for i in good)
    notes = (
        [f"{bad} {'entry' if bad == 1 else 'entries'} of it left out: no such view, or the view itself"] if bad else []
    )
    notes += [f"no such view {', '.join(f'{ref:g}' for ref in unknown[:3])}"] if unknown else []
    return out, path, notes


def _pair_rows(path: Path) -> list[tuple[float, list[float]]]:
    """Return the view and its sources of each row of pair.txt, as they stand.

    Raises:
        InputError: if it is cut short, or a count is none.
    """
    values = numbers(path)
    out, at = [], 1
    count = values[0] if len(values) else np.nan
    for _ in range(int(count) if 0 <= count <= len(values) else len(values) + 1):
        length = values[at + 1] if at + 1 < len(values) else np.nan
        if not (0 <= length <= len(values) and length == int(length) and np.isfinite(values[at])):
            break
        end = at + 2 + 2 * int(length)
        if end > len(values):
            break
        out.append((float(values[at]), values[at + 2 : end : 2].tolist()))
        at = end
    if len(out) != count:
        raise InputError(
            f"{path}: {_pairs_fault(values, len(out))}; expected the number of views, then for each view its number "
            "and a row of its sources (n id score id score ...)"
        )
    return out


def _pairs_fault(values: np.ndarray, read: int) -> str:
    """Say why the rows of pair.txt are not as many as its first number, of which so many can be read."""
    if not len(values):
        return "the file is empty"
    count = values[0]
    if not (np.isfinite(count) and count >= 0 and count == int(count)):
        return f"its first number is {count:g}, no number of views"
    if count > len(values):
        return f"its first number, the number of views, is {count:.0f}, but the file has only {len(values)} numbers"
    return f"cut short or damaged: its first number says {count:.0f} views, and the row of view {read + 1} is not whole"


FORMAT = Format(
    key="mvsnet",
    name="MVSNet cams",
    looks_for="cams/*_cam.txt with images/ (and pair.txt)",
    find=_find,
    read=_read,
)
