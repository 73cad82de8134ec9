"""The open real scans as the box would see them, and what a reader saw in them, side by side with the screenings.

A difference is allowed that the reader's own uncertainty and voxels of 2 mm explain; see ``tests/readings/README.md``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from appliance.scan import Acquisition, ContrastTag, KernelFamily, Scan, SourceFrame, Volume

if TYPE_CHECKING:
    from appliance.screenings.contract import Outcome

VOLUMES = Path(__file__).parents[3] / "shared" / "data" / "volumes-2mm"
READINGS = Path(__file__).parents[1] / "readings"
#: No diameter of a volume with voxels of 2 mm is better than this, whatever the reader felt, mm.
_LEAST_MM = 3.0
#: The reader measured the thoracic aorta at one level, the screening its widest place: so much wider it may be, mm.
_WIDER_ELSEWHERE_MM = 4.0
_ORGAN_HU = 8.0
#: Bodies differ along one spine, and reader and screening choose others.
_MARROW_HU = 25.0
_UNSEEN_ML = 100.0
#: Minimal calcium; specks under 2 mm do not survive these volumes.
_UNSEEN_AGATSTON = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One number beside its reading; ``measured`` is ``None`` where the screening gave a reason instead."""

    scan: str
    screening: str
    name: str
    measured: float | None
    reason: str
    read: str
    lowest: float
    highest: float

    @property
    def agrees(self) -> bool:
        """Whether the number is as the reader saw it, or a coded reason stands in its place."""
        if self.measured is None:
            return bool(self.reason)
        return self.lowest <= self.measured <= self.highest

    def __str__(self) -> str:
        said = self.reason if self.measured is None else f"{self.measured:.1f}"
        return f"{self.scan:34s} {self.name:32s} {said:>24s}   read {self.read}{'' if self.agrees else '   DIFFERS'}"


def names() -> list[str]:
    """Every scan that was read by hand."""
    return sorted(path.stem for path in READINGS.glob("*.json"))


def real_scan(name: str) -> Scan:
    """A scan with what its header would say; a contrast scan's says nothing. Skips where the data are absent."""
    path = VOLUMES / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip("the development data are not here")
    return nifti_scan(path, plain=name.endswith("_plain"))


def nifti_scan(path: Path, *, plain: bool = False) -> Scan:
    """A scan from a NIfTI file of Hounsfield units, whose header is taken to say 120 kV, and no contrast if plain."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.as_closest_canonical(nibabel.load(path))
    # NIfTI is right, anterior, head; here the axes are head, back, left
    hu = np.ascontiguousarray(np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)[:, ::-1, ::-1])
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[2], spacing[1], spacing[0], 1.0
    frames = tuple(SourceFrame(f"1.2.3.{index}", None, (0.0, 0.0, float(index))) for index in range(len(hu)))
    acquisition = Acquisition(
        # the volumes do not tell it; reader and screening see the same HU
        kvp=120.0,
        kernel_family=KernelFamily.UNKNOWN,
        slice_thickness_mm=float(spacing[2]),
        contrast_tag=ContrastTag.NONE if plain else ContrastTag.UNKNOWN,
    )
    return Scan(Volume(hu, affine, frames), acquisition, "1.2", "1.2.3")


def read_by_hand(name: str) -> dict[str, str]:
    """What a reader wrote of a scan, by the measurement it is compared with; empty where nobody read it."""
    path = READINGS / f"{name}.json"
    if not path.exists():
        return {}
    return {measurement: read for _, measurement, read, _, _ in _expected(json.loads(path.read_text()))}


def rows(name: str, outcomes: dict[str, Outcome]) -> list[Row]:
    """Put every number that was read beside its reading."""
    reading = json.loads((READINGS / f"{name}.json").read_text())
    return [_row(name, outcomes, *expected) for expected in _expected(reading)]


def _row(
    scan: str, outcomes: dict[str, Outcome], screening: str, name: str, read: str, lowest: float, highest: float
) -> Row:
    outcome = outcomes[screening]
    found = [item.value for item in outcome.measurements if item.name == name]
    reason = outcome.reason.code.value if outcome.reason else ""
    if not found and not reason and outcome.caveats:
        reason = "left out with a caveat"
    return Row(scan, screening, name, found[0] if found else None, reason, read, lowest, highest)


def _expected(reading: dict[str, Any]) -> list[tuple[str, str, str, float, float]]:
    """Screening, measurement, what was read, and from where to where a number agrees with it."""
    expected: list[tuple[str, str, str, float, float]] = []
    for part, wider in (("ascending", _WIDER_ELSEWHERE_MM), ("descending", _WIDER_ELSEWHERE_MM), ("abdominal", 0.0)):
        name = f"{part}_aorta_diameter_mm"
        if reading[name]:
            expected.append(("aorta", name, *_diameter(reading[name], wider)))
    if reading["pulmonary_trunk_diameter_mm"]:
        name = "pulmonary_trunk_diameter_mm"
        expected.append(("pulmonary_artery", name, *_diameter(reading[name], 0.0)))
    for name in ("liver_mean_hu", "spleen_mean_hu"):
        if reading[name]:
            value = reading[name]["value"]
            expected.append(("liver_fat", name, f"{value:g}", value - _ORGAN_HU, value + _ORGAN_HU))
    bodies = [body["value"] for body in reading["vertebra_trabecular_hu"]]
    if bodies:
        read = f"{min(bodies):g} to {max(bodies):g}"
        low, high = min(bodies) - _MARROW_HU, max(bodies) + _MARROW_HU
        expected.append(("bone_density", "vertebra_trabecular_hu", read, low, high))
    if reading["pleural_effusion"] == "none seen":
        names = (f"pleural_effusion_{side}_ml" for side in ("left", "right"))
        expected += [("pleural_effusion", name, "none seen", 0.0, _UNSEEN_ML) for name in names]
    if reading["coronary_calcium"] == "none seen":
        expected.append(("coronary_calcium", "agatston_score", "none seen", 0.0, _UNSEEN_AGATSTON))
    return expected


def _diameter(read: dict[str, float], wider_mm: float) -> tuple[str, float, float]:
    value, about = read["value"], read["uncertainty"]
    margin = max(_LEAST_MM, about)
    return f"{value:g} ± {about:g}", value - margin, value + margin + wider_mm
