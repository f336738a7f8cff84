"""Read, check and refine a scene: the one way from files to a scene that is ready for estimation.

::

    read | structure from motion -> every -> fixes -> [check] -> [refine] -> [triangulate] -> depth ranges -> sources

The commands ``infer`` and ``eval`` and the Python API take this way, so equal input gives equal depths.
"""

from __future__ import annotations

import shlex
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.check.diagnose import check_scene
from nasrecon.check.findings import Diagnosis
from nasrecon.check.summary import warning
from nasrecon.errors import InputError
from nasrecon.matching.features import FeatureStore
from nasrecon.prepare.cache import Refinement, read_refinement, write_refinement
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.read import read_scene, select_and_fix
from nasrecon.progress import LogProgress, Progress
from nasrecon.refine.poses import FEW_ERROR_PX, OFF_TIMES, refine_scene
from nasrecon.results.digest import scene_digest
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.scene.source_views import select_source_views
from nasrecon.sfm.triangulate import triangulate
from nasrecon.types import Scene

REFINE = "refine-poses"
"""The fix that asks for refined poses; it is applied once, after all other fixes, with the given poses remembered."""
MANY_VIEWS = 600
"""See ``is_off``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedScene:
    """A scene that is ready for estimation.

    Attributes:
        scene: with refined poses where they were refined, and a depth range for every view that has one.
        given_poses: (N, 4, 4) cam_from_world as read and repaired, where poses were refined; None: poses are exact.
        diagnosis: what the quick check found; None where it was not made.
        refinement: what the refinement did, one line; "" where it was not made.
        epipolar_px: median epipolar error [px of the images] of each view that the quick check compared, under the
            poses of ``scene``, by name.
        settings: the options that change the numbers of an estimate, for the manifest.
        digest: hash of all that estimates depend on, without what follows from it (depth ranges, sources).
    """

    scene: Scene
    given_poses: np.ndarray | None = None
    diagnosis: Diagnosis | None = None
    refinement: str = ""
    epipolar_px: dict[str, float] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    digest: str = ""
    _sources: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def poses_exact(self) -> bool:
        """Whether the poses are those that were given."""
        return self.given_poses is None

    def pose_error(self, view: int) -> float:
        """Return the median epipolar error of the views that were compared, in focal lengths of a view; 0: unknown."""
        errors = list(self.epipolar_px.values())
        return float(np.median(errors)) / float(self.scene.views[view].camera.K[0, 0]) if errors else 0.0

    @property
    def depth_ranges(self) -> np.ndarray:
        """(N, 2), near and far of each view [scene units]; NaN where unknown."""
        return np.array([view.depth_range or (np.nan, np.nan) for view in self.scene.views])

    def sources(self, ref: int) -> tuple[int, ...]:
        """Return the positions of the source views of a reference, best first; found on first use."""
        if ref not in self._sources:
            self._sources[ref] = select_source_views(self.scene, ref, int(str(self.settings["sources"])))
        return self._sources[ref]


def prepare_scene(
    scene: Scene | Path | str,
    poses: Path | str | None = None,
    options: PrepareOptions | None = None,
    *,
    work_dir: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> PreparedScene:
    """Prepare a scene, or the images of one, for estimation.

    Args:
        scene: from ``open_scene``, or the images as for ``open_scene``. Images without cameras get them by structure
            from motion.
        poses, reading: as for ``open_scene`` (``intrinsics``, ``convention``, ``format``, ``masks``, ``use_hints``).
        options: see ``PrepareOptions``.
        work_dir: folder that keeps models and refined poses for the next run (a results folder); None: nothing is kept.
        overwrite: make anew what the folder holds.
        progress: receives the reports; by default they are logged.

    Raises:
        InputError: if the input cannot be read, or a fix is not known.
    """
    options, progress = options or PrepareOptions(), progress or LogProgress()
    forced = REFINE in options.fixes
    options = replace(options, fixes=tuple(fix for fix in options.fixes if fix != REFINE))
    folder = None if work_dir is None else Path(work_dir)
    if isinstance(scene, Scene):
        read, arguments = select_and_fix(scene, options, progress), shlex.quote(str(scene.root))
    else:
        read = read_scene(scene, poses, options, progress, work_dir=folder, overwrite=overwrite, **reading)
        arguments = shlex.join([str(scene), *(["--poses", str(poses)] if poses else [])])
    store = FeatureStore()
    diagnosis = _quick_check(read, options, forced, store, progress, arguments)
    refinement = None
    if forced or (options.refine and is_off(diagnosis, len(read.views))):
        refinement = _refined(read, store, folder, overwrite, forced, progress)
    current, given = read, None
    if refinement is not None and refinement.poses is not None:
        given = np.array([view.cam_from_world for view in read.views])
        views = [replace(v, cam_from_world=T) for v, T in zip(read.views, refinement.poses, strict=True)]
        current = replace(read.replace_views(views), origin=read.origin.with_note(refinement.summary))
    if options.triangulate:
        current = _with_sparse_points(current, folder, overwrite, progress)
    ranged = with_depth_ranges(current, options.min_depth)
    progress.note(f"depth ranges: {depth_range_source(ranged)}")
    return PreparedScene(
        scene=ranged,
        given_poses=given,
        diagnosis=diagnosis,
        refinement="" if refinement is None else refinement.summary,
        epipolar_px={} if diagnosis is None else diagnosis.error_by_view(current),
        settings=options.settings(),
        digest=scene_digest(current, given),
    )


def _quick_check(
    scene: Scene, options: PrepareOptions, forced: bool, store: FeatureStore, progress: Progress, arguments: str
) -> Diagnosis | None:
    """Return what a quick check finds, and report the faults if asked; None where the images cannot be matched."""
    wanted = options.check or (options.refine and not forced)
    if not wanted:
        return None
    try:
        diagnosis = check_scene(scene, quick=True, store=store, progress=progress)
    except InputError:
        return None  # the estimation reports each image that cannot be read
    for line in warning(diagnosis, arguments) if options.check else ():
        progress.note(line)
    if options.check and not diagnosis.faults and diagnosis.given is not None:
        progress.note(f"cameras fit the images: {diagnosis.error(diagnosis.given)}")
    return diagnosis


def is_off(diagnosis: Diagnosis | None, views: int) -> bool:
    """Return whether poses may have to be refined: no fault, and matches farther off than their noise explains.

    A fault is not repaired by small turns of the cameras. The time that refinement takes grows with the third power of
    the number of views: of more than ``MANY_VIEWS``, matches must be off by ``FEW_ERROR_PX`` too.
    """
    if diagnosis is None or diagnosis.faults or diagnosis.given is None or diagnosis.matches is None:
        return False
    least = OFF_TIMES * diagnosis.matches.noise_px
    return diagnosis.given.median_px >= (max(least, FEW_ERROR_PX) if views > MANY_VIEWS else least)


def _refined(
    scene: Scene, store: FeatureStore, folder: Path | None, overwrite: bool, forced: bool, progress: Progress
) -> Refinement:
    """Return the refinement of the poses, from the folder where it holds one."""
    refinement = None if folder is None or overwrite is None else read_refinement(scene, folder)
    if refinement is None:
        progress.note("matches lie beside their epipolar lines; refining the poses")
        refinement = write_refinement(scene, refine_scene(scene, progress, store), folder)
    hint = "; --keep-poses leaves them as they are" if refinement.poses is not None and not forced else ""
    progress.note(f"{refinement.summary}{hint}")
    return refinement


def _with_sparse_points(scene: Scene, work_dir: Path | None, overwrite: bool, progress: Progress) -> Scene:
    """Give a scene sparse points if it has none."""
    if scene.points_in_world is not None and scene.visible is not None and len(scene.points_in_world):
        count = len(scene.points_in_world)
        progress.note(f"--triangulate: there are {count} sparse points already; they are used")
        return scene
    with nullcontext(work_dir) if work_dir else tempfile.TemporaryDirectory(prefix="nasrecon_") as folder:
        return triangulate(scene, Path(folder) / "triangulated", redo=overwrite, progress=progress)
