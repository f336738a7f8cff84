"""What the live page shows of a results folder, read piece by piece; the pages of all visitors are drawn from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError, NasReconError
from nasrecon.fuse.save import load_cloud, load_mesh
from nasrecon.results.lock import LOCK_FILE
from nasrecon.results.reader import MANIFEST_FILE
from nasrecon.types import Estimate, Mesh, Unit
from nasrecon.view.contents import Contents, Survey, look, survey_depths
from nasrecon.view.page_frame import PageFrame, choose_frame, overview
from nasrecon.view.pictures import downscale
from nasrecon.view.points import Points, points_of_cloud, points_of_view
from nasrecon.view.quality import ViewFacts, ViewQuality, rank_views
from nasrecon.view.simplify import simplify_mesh

MAX_FACES = 500_000
"""Triangles that a browser turns without delay on a laptop; larger meshes are thinned to this."""
MAX_POINTS = 1_000_000
"""Points that are held in memory; a page shows as many of them as its slider sets."""
_POLL_S = 1.0
_FRUSTUM_IMAGE_PX = 192
_OF_A_RUN = (LOCK_FILE, "sfm", "frames", "refined_poses.json")
"""What a run writes into its folder before the first view."""


class PageData:
    """A results folder as the live page has read it so far. One thread calls ``step``; others read the attributes.

    Args:
        folder: the results folder; it may not exist yet, or hold no finished view.

    Attributes:
        contents: of the folder; None until the first view is finished.
        frame: of the pages; None until then, too.
        survey: of the views, taken again as they become more. home: where a page begins, and where it looks.
        pictures: small images (h, w, 3) uint8 by the name of the view, and facts: the figures of its maps.
        mesh: simplified, or None. mesh_faces: faces of the mesh on disk. mesh_version: grows when it is read again.
        parts: points by name: "fused", or one part for each view. cloud_points: points of the cloud on disk.
        points_version: grows when points come, observed_version when they learn the depth and confidence of a view.
        problems: what could not be read and why, by what it is.

    Raises:
        InputError: if it is a folder of something else, or a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: Contents | None = _contents(folder)
        self.frame: PageFrame | None = None
        self.survey: Survey | None = None
        self.home: tuple[np.ndarray, np.ndarray] | None = None
        self.pictures: dict[str, np.ndarray] = {}
        self.facts: dict[str, ViewFacts] = {}
        self.mesh: Mesh | None = None
        self.parts: dict[str, Points] = {}
        self.mesh_faces = self.cloud_points = 0
        self.mesh_version = self.points_version = self.observed_version = 0
        self.problems: dict[str, str] = {}
        self._files: dict[str, tuple[Path, float]] = {}
        self._observed: set[str] = set()
        self._surveyed = 0.5
        self._polled_at = time.monotonic()

    @property
    def unit(self) -> Unit:
        """The unit of the scene."""
        return self.contents.results.unit if self.contents else "unknown"

    @property
    def points(self) -> int:
        """Number of points that could be shown."""
        return self.cloud_points or sum(len(part) for part in self.parts.values())

    @property
    def unread(self) -> int:
        """Number of finished views whose maps have not been read."""
        return len(self.contents.results) - len(self._observed) if self.contents else 0

    def quality(self) -> list[ViewQuality]:
        """Return the quality of the views that were read, worst first."""
        if self.contents is None:
            return []
        return rank_views(self.facts, self.contents.fusion, self.contents.results.epipolar_px)

    def estimate(self, name: str) -> Estimate:
        """Read a view from disk.

        Raises:
            InputError: if its file is damaged.
        """
        assert self.contents is not None
        return self.contents.results[self.contents.results.names.index(name)]

    def picture(self, name: str) -> np.ndarray | None:
        """Return the small image of a view, None where it is not finished.

        Raises:
            InputError: if its file is damaged.
        """
        if name in self.pictures or self.contents is None or name not in self.contents.results.names:
            return self.pictures.get(name)
        return downscale(self.estimate(name).rgb, _FRUSTUM_IMAGE_PX)

    def step(self) -> bool:
        """Read one more piece; return whether there was any."""
        if time.monotonic() - self._polled_at > _POLL_S:
            self._poll()
        if self.contents is None:
            return False
        return (
            self._take_survey()
            or self._read_file("mesh", self._read_mesh)
            or self._read_file("cloud", self._read_cloud)
            or self._read_next_view()
        )

    def _poll(self) -> None:
        self._polled_at = time.monotonic()
        self.problems.pop("folder", None)
        try:
            self.contents = _contents(self.folder) or self.contents
        except (NasReconError, OSError) as error:  # a file that is just being replaced, or damaged
            self.problems["folder"] = str(error)

    def _take_survey(self) -> bool:
        """Survey the views when the first is there, and again whenever twice as many are; the frame stays the first."""
        assert self.contents is not None
        results = self.contents.results
        if len(results) < 2 * self._surveyed:
            return False
        self._surveyed = len(results)
        self.survey = survey_depths(results, problems={})  # what cannot be read is stated when its turn comes
        frame = self.frame or choose_frame(results.views, self.survey.points_in_world)
        self.home = overview(frame, results.views, self.survey.points_in_world)
        self.frame = frame
        self.points_version += 1  # their colours follow the survey
        return True

    def _read_file(self, what: str, read: Callable[[Path], None]) -> bool:
        """Read the mesh or the cloud if it is new or has changed."""
        path: Path | None = getattr(self.contents, what)
        current = (path, path.stat().st_mtime) if path and path.is_file() else None
        if current is None or self._files.get(what) == current:
            return False
        self._files[what] = current
        try:
            read(current[0])
            self.problems.pop(what, None)
        except (NasReconError, OSError) as error:
            self.problems[what] = str(error)
        return True

    def _read_mesh(self, path: Path) -> None:
        mesh = load_mesh(path)
        self.mesh, self.mesh_faces = simplify_mesh(mesh, MAX_FACES), len(mesh.faces)
        self.mesh_version += 1

    def _read_cloud(self, path: Path) -> None:
        cloud = load_cloud(path)
        self.cloud_points = len(cloud)
        self.parts = {"fused": points_of_cloud(cloud, MAX_POINTS)}
        self._observed = set()  # its points are to observe every view
        self.points_version += 1

    def _read_next_view(self) -> bool:
        assert self.contents is not None
        results = self.contents.results
        i = next((i for i, name in enumerate(results.names) if name not in self._observed), None)
        if i is None:
            return False
        name = results.names[i]
        self._observed = {*self._observed, name}
        try:
            estimate = results[i]
        except InputError as error:
            self.problems[name] = str(error)
            return True
        self.pictures = {**self.pictures, name: downscale(estimate.rgb, _FRUSTUM_IMAGE_PX)}
        self.facts = {**self.facts, name: ViewFacts.of(estimate)}
        self._add_points(name, estimate)
        return True

    def _add_points(self, name: str, estimate: Estimate) -> None:
        """Add the points of a view; where a fused cloud is there, its points observe the view instead."""
        assert self.contents is not None
        if "fused" in self.parts:
            self.parts["fused"].observe(estimate)
            self.observed_version += 1
        else:
            share = max(1000, MAX_POINTS // self.contents.expected_views)
            self.parts = {**self.parts, name: points_of_view(estimate, share)}
            self.points_version += 1


def waits_for_a_run(folder: Path) -> bool:
    """Return whether a folder may become a results folder: it is not there or empty, or a run has begun in it."""
    if not folder.exists():
        return True
    if not folder.is_dir() or any((folder / "views").glob("*.npz")):
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & {MANIFEST_FILE, *_OF_A_RUN})


def run_holds(folder: Path) -> bool:
    """Return whether a run has its lock in the folder."""
    return (folder / LOCK_FILE).exists()


def _contents(folder: Path) -> Contents | None:
    """Look at a folder; None where no view is finished yet."""
    try:
        return look(folder)
    except InputError:
        if waits_for_a_run(folder):
            return None
        raise
