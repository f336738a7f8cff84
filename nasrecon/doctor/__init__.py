"""Are these cameras right? From images and geometry alone, before any network runs.

``check_scene`` says what is wrong and which fix repairs it, ``apply_fixes`` repairs (and only when asked)::

    matches.py    which points of which images are the same, without believing the cameras
    fit.py        how well cameras fit them
    suppose.py    what could be wrong with all cameras alike;  order.py  with the order of the images
    votes.py      which single views are wrong;  stills.py  which images give no depth;  units.py  translations and depths
    diagnose.py   all of these, in order;  findings.py, report.py  what is said
    fixes.py      the repairs;  poses.py  poses that are a little off, refined by the matches
    inject.py, generated.py, bench.py   faults made on purpose, and how many of them are found
"""

from __future__ import annotations

from nasrecon.doctor.diagnose import check_scene
from nasrecon.doctor.findings import Diagnosis, Finding
from nasrecon.doctor.fixes import apply_fixes
from nasrecon.doctor.poses import RefinedPoses, refine_poses, refine_scene

__all__ = [
    "Diagnosis",
    "Finding",
    "RefinedPoses",
    "apply_fixes",
    "check_scene",
    "refine_poses",
    "refine_scene",
]
