"""Masks: for each view an image of its file's size that is zero where no depth is wanted (sky, people, a turntable).

They are in the pixels of the files, so they are undistorted and resized as these are. JPEG rounds, so that its zeros
are not quite zeros: in a JPEG mask a pixel is kept from the middle of the range on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError, in_words
from nasrecon.ingest.images import ENDINGS, image_files, image_size
from nasrecon.types import Scene, View

JPEG = (".jpg", ".jpeg")
NAMES_SHOWN = 5


def with_masks(scene: Scene, folder: Path) -> Scene:
    """Return the scene with the masks of a folder; ``source`` says how many, and which views have none.

    The mask of ``left/1.jpg`` is ``left/1.jpg``, ``left/1.png`` (any ending of images), or ``left/1.jpg.png``, as
    COLMAP names them; without ``left/`` if no other view has that file name.

    Raises:
        InputError: if no view has a mask, or a view has two.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with a mask for each image, found a file")
    files = image_files(folder)
    by_base: dict[str, list[str]] = {}
    for file in files:
        by_base.setdefault(Path(file).with_suffix("").as_posix(), []).append(file)
    uses = Counter(key for view in scene.views for key in {Path(view.name).name, Path(view.name).stem})
    views, without, used = [], [], set()
    for view in scene.views:
        mask = _mask_of(view, by_base, uses, folder)
        if mask is None:
            without.append(view.name)
        else:
            used.add(mask)
        views.append(view.with_image(mask_path=folder / mask if mask else None))
    if not used:
        raise InputError(
            f"{folder}: no mask for any of the {len(scene.views)} views: "
            f"{f'its images are {_some(list(files))}' if files else 'there is no image in the folder'}; the views are "
            f"{_some([view.name for view in scene.views])}. Name each mask after its image."
        )
    words = f"masks of {len(used)} of {len(views)} views ({folder.name})"
    if without:
        words += f", none for {_some(without)}: these are used whole"
    if len(files) > len(used):
        words += f"; no view for {_some([file for file in files if file not in used])}"
    return replace(scene, views=tuple(views), origin=scene.origin.with_note(words))


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _mask_of(view: View, by_base: dict[str, list[str]], uses: Counter[str], folder: Path) -> str | None:
    """Return the file of a view's mask, by its name in the folder, or None."""
    whole = Path(view.name)
    stem = whole.with_suffix("") if whole.suffix.lower() in ENDINGS else whole
    bases = [stem.as_posix(), whole.as_posix()]
    if whole.parent != Path() and uses[whole.stem] == 1:
        bases += [stem.name, whole.name]
    candidates = list(dict.fromkeys(file for base in bases for file in by_base.get(base, [])))
    if len(candidates) > 1:
        raise InputError(f"{folder}: {view.name} has several masks, {', '.join(candidates)}; keep one")
    return candidates[0] if candidates else None


def check_sizes(scene: Scene) -> None:
    """Compare the sizes of all masks of a scene, as ``open_scene`` made it, with those of their images.

    Raises:
        InputError: if one differs.
    """
    for view in scene.views:
        if view.image.mask_path is not None:
            expected, size = view.image.lens or view.camera, image_size(view.image.mask_path)
            if size != (expected.width, expected.height):
                raise InputError(
                    f"{view.image.mask_path}: the mask is {size[0]}x{size[1]}, its image {view.name} is "
                    f"{expected.width}x{expected.height} (width x height). Make masks of the images' size."
                )


def read_mask(view: View) -> np.ndarray | None:
    """Read a view's mask as its image is read: undistorted, and at the size of its camera; None if it has none.

    Args:
        view: as ``open_scene`` made it, or resized.

    Returns:
        (H, W) bool, true where the pixel is kept: where at least half of its area is.

    Raises:
        InputError: if the mask cannot be read.
    """
    if view.image.mask_path is None:
        return None
    from PIL import Image

    keep = np.where(_stored(view.image.mask_path), np.uint8(255), np.uint8(0))
    if view.image.lens is not None:
        from nasrecon.ingest.undistort import undistort

        keep = undistort(np.repeat(keep[..., None], 3, axis=-1), view.image.lens)[..., 0]
    size = (view.camera.width, view.camera.height)
    if keep.shape[::-1] != size:
        keep = np.asarray(Image.fromarray(keep).resize(size, Image.Resampling.BOX))
    return keep >= 128


def _stored(path: Path) -> np.ndarray:
    """Return which pixels (H, W) of a mask file are kept; an alpha channel is not looked at."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            bands = image.getbands()
            stored = np.asarray(image.convert("RGB") if image.mode == "P" or len(bands) > 1 else image)
    except Exception as error:  # over damaged bytes Pillow raises almost anything
        raise InputError(f"{path}: cannot be read as a mask ({in_words(error)})") from error
    stored = stored >= 128 if path.suffix.lower() in JPEG else stored != 0
    return np.asarray(stored if stored.ndim == 2 else stored.any(axis=-1))
