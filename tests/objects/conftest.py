"""A small patient as DICOM in several shapes, a made-up organ map and a report with every kind of outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.config import Settings
from appliance.dicom.image.volume import build_scan
from appliance.phantom import PhantomOptions, write_series
from appliance.reasons import Reason, ReasonCode
from appliance.results.objects.write import write_objects
from appliance.results.report import Report, ScreeningResult
from appliance.screenings.contract import Evidence, Finding, Measurement, Outcome, Status, Urgency

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.scan import Scan

PACK = PackUse("trunk", "0.1.0", "sha256:" + "ab" * 32, "int8", "CPU", "openvino", "shipped")
CHINESE_NAME = "Zhang^San=张^三"
SMALL = PhantomOptions(
    rows=96, columns=96, pixel_spacing_mm=4.2, slice_thickness_mm=5.0, slice_spacing_mm=5.0, coverage_low_mm=-60.0,
    coverage_high_mm=60.0, noise_hu=0.0,
)  # fmt: skip
_PLACES = {  # structure: centre and half axes, LPS mm around the middle of the scan
    "liver": ((-85.0, 0.0, 0.0), (60.0, 60.0, 40.0)),
    "kidney_left": ((70.0, 50.0, -10.0), (25.0, 25.0, 35.0)),
    "lung_left": ((80.0, -60.0, 30.0), (40.0, 45.0, 60.0)),
    "vertebral_bodies": ((0.0, 60.0, 0.0), (18.0, 16.0, 90.0)),
}


def organs_of(scan: Scan) -> OrganMap:
    """Ellipsoids at 4 mm around the middle of the scan."""
    volume = scan.volume
    middle = volume.to_patient_mm((np.array(volume.shape) - 1) / 2)
    size = np.array([60, 80, 80])
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 4.0], [0, 4.0, 0], [4.0, 0, 0]])
    affine[:3, 3] = middle - affine[:3, :3] @ (size - 1) / 2
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    away = index @ affine[:3, :3].T + affine[:3, 3] - middle
    labels = np.zeros(tuple(size), dtype=np.uint8)
    for label, (centre, half) in enumerate(_PLACES.values(), start=1):
        labels[(((away - centre) / half) ** 2).sum(axis=-1) <= 1] = label
    return OrganMap(labels, affine, {name: n for n, name in enumerate(_PLACES, start=1)}, PACK)


def inside(name: str, scan: Scan, points_mm: np.ndarray) -> np.ndarray:
    """How far points lie from a structure's middle, 1 on its surface."""
    middle = scan.volume.to_patient_mm((np.array(scan.volume.shape) - 1) / 2)
    centre, half = _PLACES[name]
    return (((points_mm - middle - centre) / half) ** 2).sum(axis=-1)


def _evidence(scan: Scan, axis: int) -> Evidence:
    shape = tuple(n for other, n in enumerate(scan.volume.shape) if other != axis)
    mask = np.zeros(shape, dtype=bool)
    mask[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = True
    middle = scan.volume.shape[axis] // 2
    return Evidence(middle, mask, None, (-160.0, 240.0), ("a number (threshold ≥ 3)",), axis=axis)


def report_of(scan: Scan, revision: int = 1) -> Report:
    """One screening of each outcome; findings on a slice and on a sagittal picture."""
    volume = scan.volume
    middle = np.array(volume.shape) // 2
    corners = [tuple(float(v) for v in volume.to_patient_mm(middle + np.array([0, side, side]))) for side in (-8, 8)]
    box = (corners[0], corners[1])
    key = int(middle[0])
    outcomes = {
        "liver_fat": Outcome(
            Status.FINDING,
            "Liver 31 HU, below 40 HU",
            measurements=(
                Measurement("liver_mean_hu", 31.25, "[hnsf'U]", site="liver", code="DCM:112181"),
                Measurement("liver_spleen_ratio", 2.0 / 3.0, "1"),
            ),
            findings=(Finding("SCT:29185008", "Fatty degeneration", "liver", box, key),),
            evidence=_evidence(scan, 0),
            caveats=("5.0 mm slices, preferred are at most 3.0 mm",),
        ),
        "vertebral_fracture": Outcome(
            Status.FINDING,
            "L1 has lost 42 % of its height × certainly",
            Urgency.SOON,
            measurements=(
                Measurement("vertebral_height_loss_percent", 42.0, "%"),
                Measurement("vertebral_height_loss_percent", 42.0, "%", site="vertebra_L1"),
            ),
            findings=(Finding("SCT:125605004", "Fracture of bone (severe height loss)", "vertebra_L1", box, key),),
            evidence=_evidence(scan, 2),
        ),
        "kidney_stone": Outcome(
            Status.FINDING,
            "1 stone, 6 mm",
            measurements=(Measurement("kidney_stone_max_mm", 6.0, "mm", site="kidney_left"),),
            findings=(Finding("SCT:386103008", "Renal stone", "kidney_left", box, key),),
            evidence=_evidence(scan, 0),
        ),
        "coronary_calcium": Outcome(
            Status.NORMAL,
            "Agatston score 0",
            measurements=(Measurement("agatston_score", 0.0, "1", code="DCM:112058"),),
        ),
        "aorta": Outcome(Status.NOT_RUN, reason=Reason(ReasonCode.REGION_NOT_COVERED, "not in this scan: aorta")),
        "emphysema": Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.NOISE_TOO_HIGH, "noise 60 HU; at most 40 HU")),
    }
    results = tuple(ScreeningResult(name, outcome, 0.1) for name, outcome in outcomes.items())
    return Report("1.2.3", "sha256:" + "0" * 64, scan, ("abdomen",), "none", (PACK,), results, {}, revision=revision)


@dataclass(frozen=True)
class Case:
    """A patient with its objects."""

    folder: Path
    files: list[Path]
    scan: Scan
    organs: OrganMap
    report: Report
    objects: list[Path]

    def read(self, name: str) -> pydicom.Dataset:
        return pydicom.dcmread(self.folder / "objects" / f"{name}.dcm")

    def named(self, beginning: str) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in self.objects if path.name.startswith(beginning)]


def settings_of(**results: object) -> Settings:
    every_kind = {"objects": ["sr", "seg", "capture", "pdf", "ko"]}
    return Settings.model_validate({"box": {"name": "box-7"}, "results": every_kind | results})


def case_of(folder: Path, options: PhantomOptions = SMALL, change=None, revision: int = 1, **results: object) -> Case:
    """Write a patient, perhaps change its files, and make its objects."""
    source = folder / "source"
    write_series(options, source)
    files = sorted(source.glob("*.dcm"))
    for path in files if change is not None else ():
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path)
    scan = build_scan(files)
    organs, report = organs_of(scan), report_of(scan, revision)
    objects = write_objects(folder, scan, report, organs, files, settings_of(**results))
    return Case(folder, files, scan, organs, report, objects)


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Case:
    return case_of(tmp_path_factory.mktemp("plain"))


#: Everything a header may lack, and identifiers that nobody filled in.
def bare(ds: pydicom.Dataset) -> None:
    for keyword in (
        *("StudyID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "Manufacturer"),
        *("ReferringPhysicianName", "FrameOfReferenceUID", "PatientAge", "PatientSize", "StudyDescription"),
    ):
        if keyword in ds:
            delattr(ds, keyword)
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID = "", "", ""


def chinese_in_iso_2022(ds: pydicom.Dataset) -> None:
    """A name in GB 2312 with escapes, as ISO 2022 IR 58 has it, and a private element that is nobody's business."""
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
    ds.PatientName = "Zhang^XiaoDong=张^小东"
    ds.StudyDescription = "胸部平扫"
    ds.private_block(0x0011, "SOMEBODY", create=True).add_new(1, "LO", "secret")
    ds.BurnedInAnnotation = "NO"


VARIANTS: dict[str, tuple[PhantomOptions, object, dict[str, object]]] = {
    "plain": (SMALL, None, {}),
    "feet first, prone, oblique": (
        replace(SMALL, patient_position="FFP", oblique_degrees=8.0, slice_order="descending"),
        None,
        {"patient_name_on_captures": True},
    ),
    "gb18030": (
        replace(SMALL, patient_name=CHINESE_NAME, character_set="gb18030"),
        None,
        {"language": "zh", "patient_name_on_captures": True},
    ),
    "utf-8": (replace(SMALL, patient_name=CHINESE_NAME, character_set="utf-8"), None, {"language": "zh"}),
    "iso 2022": (SMALL, chinese_in_iso_2022, {"language": "zh"}),
    "multi-frame": (replace(SMALL, multi_frame=True), None, {}),
    "gantry tilt": (replace(SMALL, gantry_tilt_degrees=15.0), None, {"language": "zh"}),
    "bare header": (SMALL, bare, {}),
}


@pytest.fixture(scope="session", params=list(VARIANTS))
def variant(request, tmp_path_factory) -> Case:
    options, change, results = VARIANTS[request.param]
    return case_of(tmp_path_factory.mktemp("variant"), options, change, **results)
