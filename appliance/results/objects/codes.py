"""Coded concepts of the result objects: the standard's own where it has one, else our documented private scheme.

Standard codes are those of PS3.16 as of 2025; the private ones are listed in ``docs/conformance.md``, and a code that
has been used once never changes its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.anatomy.structures import STRUCTURES
from appliance.reasons import ReasonCode
from appliance.screenings.contract import Status, Urgency

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

    from appliance.screenings.contract import Measurement

PRIVATE_SCHEME = "99APPLIANCE"
PRIVATE_SCHEME_UID = "2.25.326186569904084143220559548984923805344"
PRIVATE_SCHEME_NAME = "CT screening appliance, private codes"


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (PS3.3 8.8).

    Attributes
    ----------
    scheme, value, meaning
        Coding Scheme Designator, Code Value, Code Meaning.
    """

    scheme: str
    value: str
    meaning: str

    def coded(self) -> CodedConcept:
        """Return it as highdicom takes it."""
        from highdicom.sr import CodedConcept

        return CodedConcept(self.value, self.scheme, self.meaning)


def _private(value: str, meaning: str) -> Concept:
    return Concept(PRIVATE_SCHEME, value, meaning)


#: Measurement name to its private concept; used where the screening names no standard code.
MEASUREMENTS: dict[str, Concept] = {
    "laa950_percent": _private("M101", "Lung voxels below -950 HU"),
    "perc15_hu": _private("M102", "15th percentile of lung density"),
    "lung_volume_ml": _private("M103", "Lung volume in the scan"),
    "liver_spleen_difference_hu": _private("M201", "Liver minus spleen attenuation"),
    "liver_spleen_ratio": _private("M202", "Liver to spleen attenuation ratio"),
    "kidney_stone_count": _private("M301", "Number of kidney stones"),
    "kidney_stone_max_mm": _private("M302", "Largest diameter of the largest kidney stone"),
    "kidney_stone_volume_mm3": _private("M303", "Volume of kidney stones"),
    "abdominal_aorta_diameter_mm": _private("M401", "Largest abdominal aortic diameter"),
    "pa_to_aorta_ratio": _private("M402", "Pulmonary trunk to ascending aorta diameter ratio"),
    "pleural_effusion_left_ml": _private("M501", "Volume of left pleural fluid"),
    "pleural_effusion_right_ml": _private("M502", "Volume of right pleural fluid"),
    "vertebral_height_loss_percent": _private("M601", "Vertebral height loss"),
    "vertebra_anterior_height_mm": _private("M602", "Anterior vertebral height"),
    "vertebra_middle_height_mm": _private("M603", "Middle vertebral height"),
    "vertebra_posterior_height_mm": _private("M604", "Posterior vertebral height"),
    "skeletal_muscle_area_cm2": _private("M701", "Skeletal muscle cross-sectional area"),
    "skeletal_muscle_index": _private("M702", "Skeletal muscle index"),
    "visceral_fat_area_cm2": _private("M703", "Visceral fat cross-sectional area"),
    "subcutaneous_fat_area_cm2": _private("M704", "Subcutaneous fat cross-sectional area"),
    "intermuscular_fat_area_cm2": _private("M705", "Intermuscular fat cross-sectional area"),
}
#: Concepts of the standard that measurements and findings name, with the meaning that PS3.16 gives.
STANDARD: dict[str, str] = {
    "DCM:112058": "Calcium score",
    "DCM:112181": "Mean Attenuation Coefficient",
    "DCM:122660": "Calcium Volume",
    "DCM:122661": "Calcium Mass",
    "LN:18012-5": "Ascending Aortic Diameter",
    "LN:18013-3": "Descending Aortic Diameter",
    "LN:18020-8": "Main Pulmonary Artery Diameter",
}
#: UCUM code to its meaning.
UNITS: dict[str, str] = {
    "1": "no units",
    "%": "percent",
    "[hnsf'U]": "Hounsfield unit",
    "mm": "millimeter",
    "mm3": "cubic millimeter",
    "cm2": "square centimeter",
    "cm2/m2": "square centimeter per square meter",
    "mg": "milligram",
    "mL": "milliliter",
}
#: Screening name to the concept under which its outcome stands in the report.
SCREENINGS: dict[str, Concept] = {
    "coronary_calcium": _private("S01", "Coronary calcium screening"),
    "emphysema": _private("S02", "Emphysema screening"),
    "bone_density": _private("S03", "Bone density screening"),
    "vertebral_fracture": _private("S04", "Vertebral fracture screening"),
    "liver_fat": _private("S05", "Liver fat screening"),
    "aorta": _private("S06", "Aorta screening"),
    "pulmonary_artery": _private("S07", "Pulmonary artery screening"),
    "pleural_effusion": _private("S08", "Pleural effusion screening"),
    "body_composition": _private("S09", "Body composition screening"),
    "kidney_stone": _private("S10", "Kidney stone screening"),
}
STATUSES: dict[Status, Concept] = {
    Status.FINDING: _private("O1", "Finding, not reviewed"),
    Status.NORMAL: _private("O2", "Nothing found, not reviewed"),
    Status.NOT_RUN: _private("O3", "Not run"),
    Status.ABSTAINED: _private("O4", "Ran but abstained"),
    Status.FAILED: _private("O5", "Failed"),
}
URGENCIES: dict[Urgency, Concept] = {
    Urgency.ROUTINE: _private("U1", "Routine"),
    Urgency.SOON: _private("U2", "Soon"),
    Urgency.URGENT: _private("U3", "Urgent"),
}
URGENCY = _private("U0", "Urgency as configured")
REASON = _private("R00", "Reason for no result")
#: The order of the vocabulary is not the order of the numbers: a new reason takes the next free one.
REASONS: dict[ReasonCode, Concept] = {
    code: _private(value, code.value.replace("_", " ").capitalize())
    for value, code in (
        ("R10", ReasonCode.DISABLED),
        ("R11", ReasonCode.STRUCTURE_NOT_PROVIDED),
        ("R12", ReasonCode.CONTRAST_ENHANCED),
        ("R13", ReasonCode.CONTRAST_DISAGREES),
        ("R14", ReasonCode.SLICE_TOO_THICK),
        ("R15", ReasonCode.KERNEL_TOO_SHARP),
        ("R16", ReasonCode.KVP_UNSUITABLE),
        ("R17", ReasonCode.AGE_OUT_OF_RANGE),
        ("R18", ReasonCode.BETTER_SERIES),
        ("R19", ReasonCode.REGION_NOT_COVERED),
        ("R30", ReasonCode.AIR_NOT_CALIBRATED),
        ("R31", ReasonCode.METAL_ARTIFACTS),
        ("R32", ReasonCode.NOISE_TOO_HIGH),
        ("R33", ReasonCode.ORGAN_CUT_OFF),
        ("R34", ReasonCode.ORGAN_IMPLAUSIBLE),
        ("R35", ReasonCode.LEVELS_UNCERTAIN),
        ("R36", ReasonCode.NOT_INSPIRATORY),
        ("R37", ReasonCode.METAL_IN_ORGAN),
        ("R38", ReasonCode.POSITION_UNSUITABLE),
        ("R39", ReasonCode.MOTION_ARTIFACTS),
        ("R50", ReasonCode.SCREENING_FAILED),
    )
}
#: What a report of this appliance is as a service; HL7 messages say it.
SERVICE = _private("S00", "CT screening by AI, not reviewed")
FINDING = Concept("DCM", "121071", "Finding")
STUDY = Concept("DCM", "110180", "Study Instance UID")
OTHER_REASON = _private("R99", "Other reason")
OTHER_SCREENING = _private("S99", "Other screening")
OTHER_MEASUREMENT = _private("M999", "Other measurement")


def private_concepts() -> tuple[Concept, ...]:
    """Return every private concept, for the conformance statement and its test."""
    tables = (MEASUREMENTS, SCREENINGS, STATUSES, URGENCIES, REASONS)
    listed = [concept for table in tables for concept in table.values()]
    return (*listed, SERVICE, URGENCY, REASON, OTHER_REASON, OTHER_SCREENING, OTHER_MEASUREMENT)


def measured(measurement: Measurement) -> Concept:
    """Return the concept of a measurement: the standard's where the screening names one."""
    if measurement.code is not None and measurement.code in STANDARD:
        return named(measurement.code, STANDARD[measurement.code])
    private = MEASUREMENTS.get(measurement.name)
    if private is not None:
        return private
    return Concept(PRIVATE_SCHEME, OTHER_MEASUREMENT.value, measurement.name.replace("_", " ")[:64])


def named(code: str, meaning: str) -> Concept:
    """Return a concept from ``"SCHEME:value"``."""
    scheme, _, value = code.partition(":")
    # what stands in brackets is about this patient and no part of the concept
    return Concept(scheme, value, STANDARD.get(code, meaning.partition(" (")[0])[:64])


def unit(ucum: str) -> Concept:
    """Return a unit of measurement (CID 7181)."""
    return Concept("UCUM", ucum, UNITS.get(ucum, ucum))


def site(name: str) -> Concept | None:
    """Return the anatomical site of a structure name; ``None`` where it names none."""
    structure = STRUCTURES.get(name)
    return None if structure is None else Concept("SCT", structure.code, structure.meaning)


def laterality(name: str) -> Concept | None:
    """Return the side of a structure (CID 244)."""
    structure = STRUCTURES.get(name)
    side = None if structure is None else structure.laterality
    return {
        "left": Concept("SCT", "7771000", "Left"),
        "right": Concept("SCT", "24028007", "Right"),
        None: None,
    }[side]
