"""All at once: images to a results folder, a cloud and a mesh, as ``nasrecon infer`` and ``nasrecon fuse`` do it."""

from __future__ import annotations

from pathlib import Path

from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.save import save_cloud, save_mesh
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import claimed, estimate_to_folder
from nasrecon.nas.network import Network
from nasrecon.nas.weights import load_network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.progress import Progress
from nasrecon.results.fusion_record import fusion_facts, write_fusion
from nasrecon.results.reader import Results


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
    """Reconstruct a set of images: estimates, cloud.ply, mesh.ply and fusion.json in the folder ``out``.

    Args:
        images, poses: as for ``open_scene``; images without cameras get them by structure from motion.
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
    out = Path(out)
    with claimed(out):
        scene = prepare_scene(images, poses, prepare, work_dir=out, progress=progress)
        loaded = load_network(network) if isinstance(network, (str, Path)) else network
        results = estimate_to_folder(scene, loaded, out, estimate, progress=progress).results
        return fuse_results(results, fuse, mesh=out / "mesh.ply", cloud=out / "cloud.ply", progress=progress)


def fuse_results(
    results: Results,
    options: FuseOptions | None = None,
    *,
    mesh: Path | None,
    cloud: Path | None,
    progress: Progress | None = None,
) -> Fusion:
    """Fuse a results folder, write the mesh and the cloud (None: not made), and record both in its fusion.json.

    Raises:
        InputError: if an ending is not one that is written.
        EmptyResultError: as ``fuse_estimates``.
    """
    options = options or FuseOptions()
    fusion = fuse_estimates(
        results, options, mesh=mesh is not None, cloud=cloud is not None, unit=results.unit, progress=progress
    )
    files = {}
    if fusion.cloud is not None and cloud is not None:
        written = save_cloud(fusion.cloud, cloud)
        if written.suffix.lower() == ".ply":  # what the page and the report read
            files["cloud"] = str(written)
    if fusion.mesh is not None and mesh is not None:
        files["mesh"] = str(save_mesh(fusion.mesh, mesh))
    write_fusion(results.folder, fusion_facts(fusion, files, options))
    return fusion
