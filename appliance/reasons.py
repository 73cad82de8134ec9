"""The closed vocabulary of reasons: why a series was refused or a screening gave no number.

A reason is a result. It is stored, exported and explained; nothing in the appliance invents a code outside this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Why something was not done. The member's comment is what the manual says about it."""

    # --- the input as a whole -----------------------------------------------------------------------
    NO_DICOM = "no_dicom"
    UNREADABLE_FILE = "unreadable_file"
    ARCHIVE_UNSAFE = "archive_unsafe"
    ARCHIVE_TOO_LARGE = "archive_too_large"
    # --- the series ---------------------------------------------------------------------------------
    NOT_CT = "not_ct"
    LOCALIZER = "localizer"
    NOT_ORIGINAL_AXIAL = "not_original_axial"
    TOO_FEW_SLICES = "too_few_slices"
    MISSING_SLICE = "missing_slice"
    IRREGULAR_SPACING = "irregular_spacing"
    MIXED_ORIENTATION = "mixed_orientation"
    MIXED_GEOMETRY = "mixed_geometry"
    CONFLICTING_DUPLICATES = "conflicting_duplicates"
    MISSING_GEOMETRY = "missing_geometry"
    NOT_HOUNSFIELD = "not_hounsfield"
    PIXEL_DATA_UNREADABLE = "pixel_data_unreadable"
    TOO_LARGE = "too_large"
    IMAGES_DELETED = "images_deleted"
    # --- a screening's needs ------------------------------------------------------------------------
    DISABLED = "disabled"
    STRUCTURE_NOT_PROVIDED = "structure_not_provided"
    CONTRAST_ENHANCED = "contrast_enhanced"
    CONTRAST_DISAGREES = "contrast_disagrees"
    SLICE_TOO_THICK = "slice_too_thick"
    KERNEL_TOO_SHARP = "kernel_too_sharp"
    KVP_UNSUITABLE = "kvp_unsuitable"
    AGE_OUT_OF_RANGE = "age_out_of_range"
    BETTER_SERIES = "better_series"
    POSITION_UNSUITABLE = "position_unsuitable"
    REGION_NOT_COVERED = "region_not_covered"
    # --- the quality of the scan or of the organ map ------------------------------------------------
    AIR_NOT_CALIBRATED = "air_not_calibrated"
    METAL_ARTIFACTS = "metal_artifacts"
    NOISE_TOO_HIGH = "noise_too_high"
    ORGAN_CUT_OFF = "organ_cut_off"
    ORGAN_IMPLAUSIBLE = "organ_implausible"
    LEVELS_UNCERTAIN = "levels_uncertain"
    NOT_INSPIRATORY = "not_inspiratory"
    METAL_IN_ORGAN = "metal_in_organ"
    MOTION_ARTIFACTS = "motion_artifacts"
    # --- failures -----------------------------------------------------------------------------------
    SCREENING_FAILED = "screening_failed"
    WORKER_LOST = "worker_lost"
    MEMORY_LIMIT = "memory_limit"
    TIME_LIMIT = "time_limit"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    DELIVERY_PARKED = "delivery_parked"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code from the vocabulary and one sentence with the facts of this case.

    Attributes
    ----------
    code
        Member of the closed vocabulary.
    text
        Sentence for people. It never holds text copied from a DICOM header.
    """

    code: ReasonCode
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the ``reason`` object of the public JSON."""
        return {"code": self.code.value, "text": self.text}
