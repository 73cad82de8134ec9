"""The ten screenings on every real trunk scan of the development data, beside what a reader saw there."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import InputRefusedError
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.panel import panel
from tests.screenings.real_scans import VOLUMES, nifti_scan, read_by_hand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan
    from appliance.screenings.contract import Outcome

DATA = VOLUMES.parent
DICOM = (
    "lidc-0002-plain-chest",
    "lung-dx-a0002-two-kernels-8mm",
    "tcga-bc-a10x-contrast-irregular-gaps",
    "totalsegmentator-20-slices",
)
#: What people read in scans that have no file in tests/readings: the README of the data says so.
BY_HAND = {
    "lidc-0002-plain-chest": {
        "agatston_score": "none seen",
        "laa950_percent": "1.1, by plain threshold",
        "vertebra_trabecular_hu": "185 to 202",
        "liver_mean_hu": "66 to 70",
        "spleen_mean_hu": "50 to 55",
        "ascending_aorta_diameter_mm": "35",
        "descending_aorta_diameter_mm": "24",
        "pleural_effusion_left_ml": "none seen",
        "pleural_effusion_right_ml": "none seen",
    },
    "totalsegmentator-example": {"liver_mean_hu": "46", "kidney_stone_count": "stones on both sides"},
}
#: The numbers a screening is about, of all that it gives.
NUMBERS = {
    "coronary_calcium": ("agatston_score",),
    "emphysema": ("laa950_percent",),
    "bone_density": ("vertebra_trabecular_hu",),
    "vertebral_fracture": ("vertebral_height_loss_percent",),
    "liver_fat": ("liver_mean_hu", "spleen_mean_hu"),
    "aorta": ("ascending_aorta_diameter_mm", "descending_aorta_diameter_mm", "abdominal_aorta_diameter_mm"),
    "pulmonary_artery": ("pulmonary_trunk_diameter_mm",),
    "pleural_effusion": ("pleural_effusion_left_ml", "pleural_effusion_right_ml"),
    "body_composition": ("skeletal_muscle_area_cm2", "skeletal_muscle_hu", "visceral_fat_area_cm2"),
    "kidney_stone": ("kidney_stone_count", "kidney_stone_max_mm"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One number of one scan; ``measured`` is ``None`` where ``reason`` stands in its place."""

    scan: str
    screening: str
    name: str
    measured: float | None
    reason: str
    read: str

    @property
    def difference(self) -> float | None:
        """Measured less read; beside a range the distance from it, and beside "none seen" all that was measured."""
        words = self.read.replace(",", "").split()
        if self.measured is None or not words:
            return None
        if self.read == "none seen":
            return self.measured
        if not words[0].replace(".", "").isdigit():
            return None
        low = float(words[0])
        high = float(words[2]) if words[1:2] == ["to"] else low
        return self.measured - low if self.measured < low else max(0.0, self.measured - high)


def names() -> list[str]:
    """Every real scan of a trunk that is here; each is read and screened by itself."""
    volumes = [path.name.removesuffix(".nii.gz") for path in sorted(VOLUMES.glob("*.nii.gz"))]
    archives = [name for name in DICOM if (DATA / "dicom" / f"{name}.zip").exists()]
    maps = [name for name in ("totalsegmentator-example", "atlas-abdomen") if (DATA / name).is_dir()]
    return [*volumes, *archives, *maps]


def lines_of(name: str, mapped: Callable[[Scan], OrganMap]) -> list[Line]:
    """Screen one of :func:`names`: a line for each number the screenings are about."""
    lines: list[Line] = []
    for title, scan, organs in _scans(name):
        if isinstance(scan, InputRefusedError):
            reason = scan.reason.code.value
            lines += [Line(title, one, NUMBERS[one][0], None, reason, "") for one in NUMBERS]
            continue
        outcomes, _ = panel(scan, organs or mapped(scan))
        lines += _lines(name, title, outcomes)
    return lines


def _lines(name: str, title: str, outcomes: dict[str, Outcome]) -> Iterator[Line]:
    read = BY_HAND.get(name) or read_by_hand(name)
    for screening, wanted in NUMBERS.items():
        outcome = outcomes[screening]
        if outcome.reason is not None:
            said = read.get(wanted[0], "")
            yield Line(title, screening, wanted[0], None, outcome.reason.code.value, said)
            for other in wanted[1:]:
                if other in read:
                    yield Line(title, screening, other, None, outcome.reason.code.value, read[other])
            continue
        for one in wanted:
            values = [item.value for item in outcome.measurements if item.name == one]
            if values or one in read:
                value, reason = (values[0], "") if values else (None, "left out with a caveat")
                yield Line(title, screening, one, value, reason, read.get(one, ""))


def _scans(name: str) -> Iterator[tuple[str, Scan | InputRefusedError, OrganMap | None]]:
    """Every scan that a name holds, with its organ map where the data bring one."""
    if name == "totalsegmentator-example":
        scan, organs = example_abdomen()
        yield f"{name}, its own labels", scan, organs
        yield f"{name}, the pack's map", scan, None
    elif name == "atlas-abdomen":
        yield name, nifti_scan(DATA / name / "spl_abdomen_ct_HU.nii.gz"), None
    elif name in DICOM:
        yield from ((title, scan, None) for title, scan in _series(name))
    else:
        yield name, nifti_scan(VOLUMES / f"{name}.nii.gz", plain=name.endswith("_plain")), None


def _series(name: str) -> Iterator[tuple[str, Scan | InputRefusedError]]:
    from appliance.dicom.image.files import read_inputs
    from appliance.dicom.image.volume import build_scan

    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(DATA / "dicom" / f"{name}.zip").extractall(folder)
        inputs = read_inputs([Path(folder)], Path(folder) / "unpacked")
        several = len(inputs.series) > 1
        for series in inputs.series:
            try:
                scan: Scan | InputRefusedError = build_scan(series.paths)
            except InputRefusedError as error:
                scan = error
            yield f"{name}{_which(scan) if several else ''}", scan


def _which(scan: Scan | InputRefusedError) -> str:
    if isinstance(scan, InputRefusedError):
        return ", another series"
    return f", {scan.acquisition.kernel or 'kernel unknown'}"
