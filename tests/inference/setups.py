"""Estimates of a scene whose images are not checked before."""

from __future__ import annotations

from nasrecon.inference import estimate as estimation
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import estimate_to_folder
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene


def prepared(scene, options):
    """Prepare a scene without looking at its images; returns it and the options of the estimation."""
    own = {name: options[name] for name in ("sources", "min_depth") if name in options}
    rest = {name: value for name, value in options.items() if name not in own}
    ready = prepare_scene(scene, options=PrepareOptions(check=False, refine=False, **own))
    return ready, EstimateOptions(**rest)


def estimate_views(scene, network, options=None, **rest):
    ready, options = prepared(scene, options or {})
    return estimation.estimate_views(ready, network, options, **rest)


def to_folder(scene, network, folder, options=None, *, weights_sha256="", **rest):
    network.sha256 = weights_sha256
    ready, options = prepared(scene, options or {})
    return estimate_to_folder(ready, network, folder, options, **rest).results


def names(estimates):
    return [found.view.name for found in estimates]
