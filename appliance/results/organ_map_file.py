"""The organ map as a NIfTI file that any viewer opens beside the scan, with a table of what its labels mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.structures import STRUCTURES

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.anatomy.organ_map import OrganMap


def write_organ_map(folder: Path, organs: OrganMap) -> None:
    """Write ``organ_map.nii.gz`` and ``organ_map.json`` into a folder.

    The NIfTI has axes ``(column, row, slice)`` and an affine to RAS+ mm, as the format wants it; the JSON maps each
    label to its structure, SNOMED CT code and colour.
    """
    import nibabel

    # index (column, row, slice) → index (slice, row, column) → LPS → RAS
    swap = np.eye(4)[[2, 1, 0, 3]]
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ organs.affine @ swap
    data = np.ascontiguousarray(organs.labels.transpose(2, 1, 0))
    image = nibabel.Nifti1Image(data, to_ras)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    nibabel.save(image, folder / "organ_map.nii.gz")
    table = {
        str(value): {
            "name": name,
            "code": f"SCT:{STRUCTURES[name].code}",
            "meaning": STRUCTURES[name].meaning,
            "rgb": list(STRUCTURES[name].rgb),
            "volume_ml": round(organs.volume_ml(name), 1),
        }
        for name, value in organs.values.items()
    }
    (folder / "organ_map.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
