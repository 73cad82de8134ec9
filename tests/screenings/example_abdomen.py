"""A real plain abdomen with kidney stones and a model's labels, where the development data lie beside it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from appliance.anatomy.organ_map import OrganMap
from appliance.anatomy.structures import STRUCTURES
from appliance.scan import Acquisition, ContrastTag, KernelFamily, Scan, SourceFrame, Volume
from tests.screenings.patients import TRUE_MAP

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "totalsegmentator-example"


@cache
def example_abdomen() -> tuple[Scan, OrganMap]:
    """The scan at 3 mm and its labels as an organ map; skips the test where they are not there."""
    if not FOLDER.is_dir():
        pytest.skip("the development data are not here")
    nibabel = pytest.importorskip("nibabel")
    image, labels = (nibabel.load(FOLDER / name) for name in ("ct_3mm.nii.gz", "labels_3mm.nii.gz"))
    # NIfTI is right, anterior, head; the patient's own axes here are head, back, left
    order = lambda values: np.ascontiguousarray(np.asarray(values).transpose(2, 1, 0)[:, ::-1, ::-1])  # noqa: E731
    hu, numbers = order(image.dataobj), order(labels.dataobj).astype(np.uint8)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = 3.0, 3.0, 3.0, 1.0
    affine[:3, 3] = 0.0, 0.0, float(image.affine[2, 3])
    frames = tuple(SourceFrame(f"1.2.3.{index}", None, (0.0, 0.0, float(index))) for index in range(len(hu)))
    acquisition = Acquisition(
        kvp=None, kernel_family=KernelFamily.UNKNOWN, slice_thickness_mm=3.0, contrast_tag=ContrastTag.NONE
    )
    scan = Scan(Volume(np.rint(hu).astype(np.int16), affine, frames), acquisition, "1.2", "1.2.3")
    return scan, OrganMap(numbers, affine.copy(), _values(), TRUE_MAP)


def _values() -> dict[str, int]:
    named = {row["name"]: int(number) for number, row in json.loads((FOLDER / "labels.json").read_text()).items()}
    spelt = {name.replace("vertebrae_", "vertebra_"): number for name, number in named.items()}
    return {name: number for name, number in spelt.items() if name in STRUCTURES}
