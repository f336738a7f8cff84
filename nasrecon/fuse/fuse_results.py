"""A results folder to the files of a cloud and a mesh."""

from __future__ import annotations

from pathlib import Path

from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.save import save_cloud, save_mesh
from nasrecon.progress import Progress
from nasrecon.ranks import current
from nasrecon.results.fusion_record import fusion_facts, write_fusion
from nasrecon.results.reader import Results


def fuse_results(
    results: Results,
    options: FuseOptions | None = None,
    *,
    mesh: Path | None,
    cloud: Path | None,
    progress: Progress | None = None,
) -> Fusion:
    """Fuse a results folder, write the mesh and the cloud (None: not made), and record both in its fusion.json; of the
    processes of a job the first one writes.

    Raises:
        InputError: if an ending is not one that is written.
        EmptyResultError: as ``fuse_estimates``.
    """
    options = options or FuseOptions()
    fusion = fuse_estimates(
        results, options, mesh=mesh is not None, cloud=cloud is not None, unit=results.unit, progress=progress
    )
    if not current().is_first:
        return fusion
    files = {}
    if fusion.cloud is not None and cloud is not None:
        written = save_cloud(fusion.cloud, cloud)
        if written.suffix.lower() == ".ply":  # what the page and the report read
            files["cloud"] = str(written)
    if fusion.mesh is not None and mesh is not None:
        files["mesh"] = str(save_mesh(fusion.textured or fusion.mesh, mesh))
    write_fusion(results.folder, fusion_facts(fusion, files, options, results.epipolar_px))
    return fusion
