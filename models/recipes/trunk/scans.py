"""The open scans the recipe learns from: where they lie, how they are read, and who is never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Patients that no training step may see; the model card reports on them.
HELD_OUT = ("lidc_0002", "lidc_0009", "lungdx_a0002")

#: Scans with oral contrast, whose bright bowel must teach nothing about bone.
ORAL_CONTRAST = ("acrin_flt_013",)

#: Scans whose trachea is not in the picture; a loop of bowel was once taken for it.
NO_TRACHEA = ("acrin_flt_001_abdomen", "acrin_flt_013", "totalsegmentator", "atlas")

#: The atlas's header says 1.5 × 0.94 × 0.94 mm, which would make its lumbar spine 70 mm and its kidneys 60 mm long.
#: With these the spine is 141 mm, the kidneys 120 mm and the liver 930 mL.
ATLAS_SPACING_MM = (3.0, 1.3, 1.3)


@dataclass(frozen=True, slots=True, eq=False)
class RawScan:
    """One scan in the appliance's canonical axes.

    Attributes
    ----------
    name
        File stem; the part before ``_plain`` or ``_contrast`` names the patient.
    hu
        int16 ``(slices, rows, columns)``; slices grow to the head, rows to the back, columns to the patient's left.
    spacing_mm
        Along those three axes.
    labels
        The source's own label map in the same axes, or ``None``.
    """

    name: str
    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    labels: NDArray[np.int16] | None = None

    @property
    def contrast(self) -> bool:
        """Whether intravenous contrast was given."""
        return "contrast" in self.name or self.name.startswith("atlas")

    @property
    def held_out(self) -> bool:
        """Whether the scan belongs to a patient that is never trained on."""
        return self.name.startswith(HELD_OUT)


def canonical(image: nib.Nifti1Image) -> tuple[NDArray[np.int16], tuple[float, float, float]]:
    """Reorder a NIfTI image (RAS+) to head, back, left and return it with its spacing in mm."""
    closest = nib.as_closest_canonical(image)
    array = np.asarray(closest.dataobj)
    spacing = tuple(float(length) for length in np.linalg.norm(closest.affine[:3, :3], axis=0)[::-1])
    array = np.clip(array, -32768, 32767).astype(np.int16).transpose(2, 1, 0)[:, ::-1, ::-1]
    return np.ascontiguousarray(array), spacing


def read_all(data: Path) -> list[RawScan]:
    """Read every trunk scan under the shared data folder."""
    scans = []
    for path in sorted((data / "volumes-2mm").glob("*.nii.gz")):
        hu, spacing = canonical(nib.load(path))
        scans.append(RawScan(path.name.removesuffix(".nii.gz"), hu, spacing))
    for name, ct, labels in (
        ("totalsegmentator_plain", "totalsegmentator-example/ct_3mm", "totalsegmentator-example/labels_3mm"),
        ("atlas_abdomen", "atlas-abdomen/spl_abdomen_ct_HU", "atlas-abdomen/spl_abdomen_seg"),
    ):
        hu, spacing = canonical(nib.load(data / f"{ct}.nii.gz"))
        own, _ = canonical(nib.load(data / f"{labels}.nii.gz"))
        spacing = ATLAS_SPACING_MM if name.startswith("atlas") else spacing
        scans.append(RawScan(name, np.clip(hu, -1024, 3071), spacing, own))
    return scans
