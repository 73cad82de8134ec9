"""What can be chosen about the digital test patient and about the scanner that images it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kernel = Literal["soft", "medium", "sharp"]
PatientPosition = Literal["HFS", "HFP", "FFS", "FFP"]
SliceOrder = Literal["ascending", "descending", "shuffled"]
CharacterSet = Literal["ascii", "gb18030", "utf-8"]
Syntax = Literal[
    "explicit_little_endian",
    "implicit_little_endian",
    "explicit_big_endian",
    "deflated",
    "rle_lossless",
    "jpeg_ls_lossless",
    "jpeg_2000_lossless",
]

VERTEBRAE = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True, slots=True)
class Calcification:
    """A coronary plaque: an upright cylinder of one density, digitised on the scan's own voxels.

    Attributes
    ----------
    vessel
        Which artery carries it: ``"LM"``, ``"LAD"``, ``"LCX"`` or ``"RCA"``.
    position_fraction
        Where along that artery, 0 (ostium) … 1 (end).
    peak_hu
        Density of every voxel of the plaque.
    diameter_mm, height_mm
        Size of the cylinder; the height is rounded to whole slices, at least one.
    """

    vessel: Literal["LM", "LAD", "LCX", "RCA"] = "LAD"
    position_fraction: float = 0.3
    peak_hu: float = 420.0
    diameter_mm: float = 4.0
    height_mm: float = 6.0


@dataclass(frozen=True, slots=True)
class WedgeFracture:
    """A vertebral body whose anterior height is less than its posterior height by ``height_loss_percent``."""

    vertebra: str = "L1"
    height_loss_percent: float = 30.0


@dataclass(frozen=True, slots=True)
class PhantomOptions:
    """The digital patient and how the scan is made; the defaults are a healthy adult, plain, soft kernel.

    Attributes
    ----------
    seed
        Everything random follows from it: textures, noise, the branching of vessels, and the UIDs.
    slice_thickness_mm, slice_spacing_mm, pixel_spacing_mm, rows, columns
        Sampling. The slice profile is a box of the thickness.
    coverage_low_mm, coverage_high_mm
        Centre of the lowest and highest slice on the patient's own ruler for a height of 1.70 m: the disc T12/L1 lies
        at −60, the right diaphragm's dome at +20, the carina at +147, the lung apices at +240, iliac crests at −190.
    centre_left_mm, centre_posterior_mm
        Where the middle of the image lies in the patient.
    gantry_tilt_degrees
        Slices lean about the left–right axis while the table moves along the patient (a sheared stack).
    oblique_degrees
        The whole stack is turned about the left–right axis, and half as much about the head–feet axis (orthogonal).
    patient_position
        Patient Position (0018,5100).
    slice_order
        How Instance Number and the files' order follow the positions.
    missing_slice
        Index, counted from the feet, of a slice that is not written.
    contrast_in_header, contrast_in_image
        Intravenous contrast, said and shown separately so that the two may disagree.
    kernel, kvp, noise_hu
        Reconstruction: family of the kernel, tube voltage, standard deviation at the body's centre (soft kernel).
    circular_padding_hu
        Value outside the reconstruction circle, as some scanners write it; ``None`` writes real air.
    unsigned_pixels
        Store unsigned with intercept −1024 instead of signed with intercept 0.
    emphysema_fraction
        Part of the lung (airways excluded) below −950 HU in the scan before noise.
    trabecular_hu
        Of every vertebral body, or one value per name in ``trabecular_hu_by_vertebra``.
    lesions and organ values
        As named; diameters in mm, densities in HU, volumes in ml.
    subcutaneous_fat_mm
        Thickness at the flank; other places follow.
    muscle_scale
        Thickness of the muscles beside the spine, 1 for an average adult.
    missing_organs
        Names from ``liver spleen stomach kidney_left kidney_right gallbladder pancreas bowel``.
    """

    seed: int = 1
    # --- sampling -----------------------------------------------------------------------------------
    slice_thickness_mm: float = 1.5
    slice_spacing_mm: float = 1.5
    pixel_spacing_mm: float = 0.8
    rows: int = 512
    columns: int = 512
    coverage_low_mm: float = -205.0
    coverage_high_mm: float = 262.0
    centre_left_mm: float = 0.0
    centre_posterior_mm: float = 8.0
    gantry_tilt_degrees: float = 0.0
    oblique_degrees: float = 0.0
    patient_position: PatientPosition = "HFS"
    slice_order: SliceOrder = "ascending"
    missing_slice: int | None = None
    # --- acquisition --------------------------------------------------------------------------------
    contrast_in_header: bool = False
    contrast_in_image: bool = False
    kernel: Kernel = "soft"
    kvp: float = 120.0
    noise_hu: float = 12.0
    circular_padding_hu: int | None = None
    unsigned_pixels: bool = True
    # --- the patient --------------------------------------------------------------------------------
    patient_height_m: float = 1.70
    width_scale: float = 1.0
    depth_scale: float = 1.0
    subcutaneous_fat_mm: float = 16.0
    muscle_scale: float = 1.0
    arms_down: bool = False
    table: bool = True
    sex: Literal["M", "F"] = "M"
    age_years: int = 61
    patient_name: str = "Phantom^Digital"
    patient_id: str = "PHANTOM-1"
    character_set: CharacterSet = "ascii"
    # --- lungs and pleura ---------------------------------------------------------------------------
    lung_hu: float = -860.0
    emphysema_fraction: float = 0.01
    lung_height_scale: float = 1.0
    effusion_left_ml: float = 0.0
    effusion_right_ml: float = 0.0
    # --- bones --------------------------------------------------------------------------------------
    trabecular_hu: float = 160.0
    trabecular_hu_by_vertebra: tuple[tuple[str, float], ...] = ()
    cortical_hu: float = 600.0
    wedge_fracture: WedgeFracture | None = None
    # --- heart and vessels --------------------------------------------------------------------------
    blood_hu: float = 42.0
    heart_scale: float = 1.0
    calcifications: tuple[Calcification, ...] = ()
    ascending_aorta_diameter_mm: float = 33.0
    descending_aorta_diameter_mm: float = 25.0
    abdominal_aorta_diameter_mm: float = 19.0
    pulmonary_trunk_diameter_mm: float = 26.0
    # --- abdomen ------------------------------------------------------------------------------------
    liver_hu: float = 60.0
    spleen_hu: float = 50.0
    muscle_hu: float = 55.0
    fat_hu: float = -105.0
    liver_scale: float = 1.0
    spleen_scale: float = 1.0
    kidney_stone_diameter_mm: float = 0.0
    kidney_stone_hu: float = 700.0
    kidney_stone_side: Literal["left", "right"] = "left"
    missing_organs: frozenset[str] = field(default_factory=frozenset)
    # --- the files ----------------------------------------------------------------------------------
    transfer_syntax: Syntax = "explicit_little_endian"
    multi_frame: bool = False

    def __post_init__(self) -> None:
        if min(self.slice_spacing_mm, self.slice_thickness_mm, self.pixel_spacing_mm) <= 0.0:
            raise ValueError("slice thickness, slice spacing and pixel spacing must be above 0 mm")
        if self.coverage_high_mm <= self.coverage_low_mm:
            raise ValueError("the coverage must end above where it begins")
        if not 0.0 <= self.emphysema_fraction <= 0.9:
            raise ValueError("the emphysema fraction must lie between 0 and 0.9")
        if abs(self.gantry_tilt_degrees) > 30.0 or abs(self.oblique_degrees) > 30.0:
            raise ValueError("tilt and oblique rotation must lie within ±30°")
        if self.gantry_tilt_degrees and self.oblique_degrees:
            raise ValueError("choose a gantry tilt or an oblique rotation, not both")
        if self.missing_slice is not None and self.multi_frame:
            raise ValueError("a multi-frame instance is written whole; a missing slice needs single frames")
        if self.wedge_fracture is not None and self.wedge_fracture.vertebra not in VERTEBRAE:
            raise ValueError(f"unknown vertebra {self.wedge_fracture.vertebra}")
        padding = self.circular_padding_hu
        if padding is not None and padding < -1024 and self.unsigned_pixels:  # the intercept
            raise ValueError("unsigned pixels with intercept −1024 cannot hold a padding below −1024 HU")
        if self.character_set == "ascii" and not self.patient_name.isascii():
            raise ValueError("a patient name in ASCII cannot hold other characters; choose gb18030 or utf-8")

    def trabecular(self, vertebra: str) -> float:
        """Return the trabecular density chosen for a vertebra, HU."""
        return dict(self.trabecular_hu_by_vertebra).get(vertebra, self.trabecular_hu)

    @property
    def coverage_mm(self) -> tuple[float, float]:
        """Lower edge of the lowest slice and upper edge of the highest one in the patient, mm."""
        low, high = self.coverage_low_mm * self.height_scale, self.coverage_high_mm * self.height_scale
        steps = int((high - low) / self.slice_spacing_mm + 1e-9)
        half = 0.5 * self.slice_spacing_mm
        return low - half, low + steps * self.slice_spacing_mm + half

    @property
    def height_scale(self) -> float:
        """Stretch along the body compared with a patient of 1.70 m."""
        return self.patient_height_m / 1.70
