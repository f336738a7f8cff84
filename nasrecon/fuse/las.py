"""Point clouds as LAS and LAZ, the formats of surveying programs, through laspy."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from nasrecon.errors import NasReconError
from nasrecon.types import PointCloud

_STEPS_PER_UNIT = {"m": 16_000, "mm": 16, "unknown": 16_000}
_LARGEST = 2**31 - 2


def load_laspy() -> Any:
    """Import laspy.

    Raises:
        NasReconError: if it is missing; says what to install.
    """
    try:
        import laspy
    except ImportError as error:
        raise NasReconError(f"LAS and LAZ need laspy ({error}): pip install 'nasrecon[las]', or write .ply") from error
    return laspy


def las_bytes(cloud: PointCloud, *, compressed: bool) -> bytes:
    """Return a cloud as a LAS 1.4 file (point format 7), or as LAZ.

    Positions are whole steps of 1/16 mm (of 1/16,000 where the unit is unknown) from the cloud's corner, larger steps
    where the cloud would not fit 32 bits. Normals, sigma and support are extra dimensions.

    Raises:
        NasReconError: if laspy is missing.
    """
    laspy = load_laspy()
    header = laspy.LasHeader(point_format=7, version="1.4")
    low = cloud.xyz.min(axis=0) if len(cloud) else np.zeros(3)
    extent = float(np.ptp(cloud.xyz, axis=0).max()) if len(cloud) else 0.0
    header.offsets = np.floor(low)
    header.scales = np.full(3, max(1 / _STEPS_PER_UNIT[cloud.unit], (extent + 1) / _LARGEST))
    header.generating_software = "nasrecon"
    extra = {"nx": cloud.normal[:, 0], "ny": cloud.normal[:, 1], "nz": cloud.normal[:, 2]}
    if cloud.sigma is not None:
        extra["sigma"] = cloud.sigma
    for name in extra:
        header.add_extra_dim(laspy.ExtraBytesParams(name=name, type=np.float32))
    header.add_extra_dim(laspy.ExtraBytesParams(name="support", type=np.uint16))
    file = laspy.LasData(header)
    file.x, file.y, file.z = cloud.xyz.T
    file.red, file.green, file.blue = cloud.rgb.T.astype(np.uint16) * 257
    for name, values in extra.items():
        file[name] = values.astype(np.float32)
    file["support"] = cloud.support.clip(0, 65535).astype(np.uint16)
    out = BytesIO()
    file.write(out, do_compress=compressed)
    return out.getvalue()
