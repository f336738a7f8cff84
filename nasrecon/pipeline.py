"""All at once: images to a results folder, a cloud, a mesh and a report, as the commands do it one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasrecon.fuse.fuse_results import fuse_results
from nasrecon.fuse.fusion import Fusion
from nasrecon.fuse.options import FuseOptions
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import RunSummary, claimed, estimate_to_folder, refuse_other_results
from nasrecon.nas.network import Network
from nasrecon.nas.weights import load_network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import PreparedScene, prepare_scene
from nasrecon.progress import LogProgress, Progress
from nasrecon.ranks import current
from nasrecon.view.report import write_report


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What ``reconstruct_to_folder`` made.

    Attributes:
        run: the counts of the estimation.
        fusion: the cloud and the mesh.
        mesh, cloud, report: the files.
    """

    run: RunSummary
    fusion: Fusion
    mesh: Path
    cloud: Path
    report: Path


def reconstruct(
    images: Path | str,
    poses: Path | str | None = None,
    *,
    out: Path | str = "nasrecon_out",
    network: Network | Path | str = "lite",
    prepare: PrepareOptions | None = None,
    estimate: EstimateOptions | None = None,
    fuse: FuseOptions | None = None,
    progress: Progress | None = None,
) -> Fusion:
    """Reconstruct a set of images: estimates, cloud.ply, mesh.ply, fusion.json and report.html in the folder ``out``.

    Args:
        images, poses: as for ``open_scene``; images and videos without cameras get them by structure from motion.
        out: the results folder. A rerun continues where the last one stopped.
        network: from ``load_network``, or the name or file of its weights.
        prepare, estimate, fuse: options of the three stages.
        progress: receives the reports; by default they are logged.

    Returns:
        the cloud and the mesh in the world frame [scene units], and the statistics of the fusion.

    Raises:
        InputError: if the input cannot be read, another run holds the folder, or it holds views made under other
            settings.
        EmptyResultError: if no view could be estimated, or no two views agree.
    """
    loaded = load_network(network) if isinstance(network, (str, Path)) else network
    return reconstruct_to_folder(
        images, poses, Path(out), loaded, prepare=prepare, estimate=estimate, fuse=fuse, progress=progress
    ).fusion


def reconstruct_to_folder(
    images: Path | str,
    poses: Path | str | None,
    out: Path,
    network: Network,
    *,
    prepare: PrepareOptions | None = None,
    estimate: EstimateOptions | None = None,
    fuse: FuseOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> Reconstruction:
    """Do what ``reconstruct`` does, and return all that was made.

    Args:
        images, poses, out, prepare, estimate, fuse, progress: as for ``reconstruct``.
        network: a loaded one.
        overwrite: make anew what the folder holds.
        reading: as for ``open_scene``.

    Raises:
        InputError, EmptyResultError: as ``reconstruct``.
    """
    progress = progress or LogProgress()
    with claimed(out):
        run = estimate_images(
            images, poses, out, network, prepare, estimate, overwrite=overwrite, progress=progress, **reading
        )
        textured = fuse is not None and fuse.texture is not None
        mesh, cloud = out / ("mesh.glb" if textured else "mesh.ply"), out / "cloud.ply"
        fusion = fuse_results(run.results, fuse, mesh=mesh, cloud=cloud, progress=progress)
        for note in fusion.stats.notes():
            progress.note(note)
        report = write_report(out, out / "report.html", progress=progress)
    return Reconstruction(run=run, fusion=fusion, mesh=mesh, cloud=cloud, report=report)


def estimate_images(
    images: Path | str,
    poses: Path | str | None,
    out: Path,
    network: Network,
    prepare: PrepareOptions | None = None,
    estimate: EstimateOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> RunSummary:
    """Prepare a set of images and estimate its views into a results folder, which is refused before any work if it
    holds other results. Under ``ranks.as_ranks`` the first rank prepares, and all share the views.

    Args, Raises: as ``reconstruct_to_folder``.
    """
    prepare, estimate = prepare or PrepareOptions(), estimate or EstimateOptions()

    def prepared() -> PreparedScene:
        if not overwrite:
            refuse_other_results(out, network, prepare, estimate)
        return prepare_scene(images, poses, prepare, work_dir=out, overwrite=overwrite, progress=progress, **reading)

    with claimed(out):
        scene = current().from_first(prepared)
        return estimate_to_folder(scene, network, out, estimate, overwrite=overwrite, progress=progress)
