"""The scan as every room sees it: voxels in Hounsfield units, their geometry, and how they were acquired.

No DICOM here: these value types are what the DICOM room hands on, and what a notebook can build by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class KernelFamily(StrEnum):
    """Sharpness of the reconstruction kernel, told from its vendor's name."""

    SOFT = "soft"
    MEDIUM = "medium"
    SHARP = "sharp"
    UNKNOWN = "unknown"


class ContrastTag(StrEnum):
    """What the header says of intravenous contrast; the image has its own say (the contrast guard)."""

    NONE = "none"
    GIVEN = "given"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """Where one slice of a volume came from.

    Attributes
    ----------
    sop_instance_uid
        SOP Instance UID of the instance.
    frame_number
        One-based frame number in a multi-frame instance, ``None`` in a single-frame one.
    position_mm
        Image Position (Patient) as received, LPS, before any tilt was sheared back.
    """

    sop_instance_uid: str
    frame_number: int | None
    position_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Hounsfield units on a regular grid in the patient.

    Attributes
    ----------
    hu
        int16, shape ``(slices, rows, columns)``, C-contiguous, read-only. Slice index grows along the last column of
        the affine.
    affine
        float64, shape ``(4, 4)``: maps the homogeneous index ``(slice, row, column, 1)`` to the DICOM patient
        coordinate system (LPS) in mm, at the centre of the voxel. Its three columns are orthogonal.
    frames
        One per slice, in slice order; empty for a volume that does not come from DICOM.
    """

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    frames: tuple[SourceFrame, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16:
            raise ValueError("hu must be a three-dimensional int16 array")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError("affine must be a finite 4 × 4 matrix")
        if self.frames and len(self.frames) != self.hu.shape[0]:
            raise ValueError("there must be one source frame per slice")
        self.hu.flags.writeable = False
        self.affine.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.hu.shape
        return slices, rows, columns

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along slices, rows and columns, mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitre."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_patient_mm(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map indices ``(…, 3)`` in ``(slice, row, column)`` order to LPS mm."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, position_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map LPS positions ``(…, 3)`` in mm to fractional ``(slice, row, column)`` indices."""
        offset = np.asarray(position_mm, dtype=np.float64) - self.affine[:3, 3]
        return offset @ np.linalg.inv(self.affine[:3, :3]).T


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the scan was made: numbers and enumerations only, nothing that names the patient.

    Attributes
    ----------
    manufacturer, model
        As in the header.
    kvp
        Tube voltage, kV; ``None`` when the header is silent.
    kernel
        Convolution Kernel (0018,1210), first value.
    kernel_family
        What that name means.
    slice_thickness_mm
        Slice Thickness (0018,0050); ``None`` when the header is silent. The spacing is in the volume.
    contrast_tag
        What the header says of intravenous contrast.
    patient_age_years, patient_sex, patient_height_m
        ``patient_sex`` is ``"M"``, ``"F"``, ``"O"`` or ``None``.
    patient_position
        Patient Position (0018,5100), such as ``"HFS"``; ``None`` when the header is silent.
    gantry_tilt_degrees
        Angle that was sheared back, measured from the positions, not from the tag.
    """

    manufacturer: str = ""
    model: str = ""
    kvp: float | None = None
    kernel: str = ""
    kernel_family: KernelFamily = KernelFamily.UNKNOWN
    slice_thickness_mm: float | None = None
    contrast_tag: ContrastTag = ContrastTag.UNKNOWN
    patient_age_years: float | None = None
    patient_sex: str | None = None
    patient_height_m: float | None = None
    patient_position: str | None = None
    gantry_tilt_degrees: float = 0.0


@dataclass(frozen=True, slots=True)
class SeriesSketch:
    """What the headers of a usable series say, before any pixel is read; enough to choose between reconstructions.

    Attributes
    ----------
    study_instance_uid, series_instance_uid, frame_of_reference_uid
        Identifiers copied from the header.
    series_number
        As people know it; ``None`` when the header is silent.
    acquisition_numbers
        Acquisition Number (0020,0012) of its images; empty when the header is silent.
    extent_mm
        Lowest and highest slice along the common normal, mm.
    slice_spacing_mm
        Distance between slices.
    acquisition
        How it was made.
    """

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    series_number: int | None
    acquisition_numbers: frozenset[int]
    extent_mm: tuple[float, float]
    slice_spacing_mm: float
    acquisition: Acquisition

    @property
    def slice_thickness_mm(self) -> float:
        """The larger of the nominal thickness and the distance between slices, mm."""
        return max(self.slice_spacing_mm, self.acquisition.slice_thickness_mm or 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One CT series, ready to be asked questions.

    Attributes
    ----------
    volume
        The voxels.
    acquisition
        How they were made.
    study_instance_uid, series_instance_uid, frame_of_reference_uid
        Identifiers copied from the header.
    notes
        Sentences about what was mended or noticed while building the volume, for the report.
    """

    volume: Volume
    acquisition: Acquisition = field(default_factory=Acquisition)
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    notes: tuple[str, ...] = ()

    @property
    def slice_thickness_mm(self) -> float:
        """The larger of the nominal thickness and the distance between slices, mm."""
        spacing = self.volume.spacing_mm[0]
        return max(spacing, self.acquisition.slice_thickness_mm or 0.0)
