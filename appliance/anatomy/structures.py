"""The structure vocabulary: every pack maps its outputs to these names, and every screening asks for them by name.

Codes are SNOMED CT, as used for Segmented Property Type in DICOM PS3.16 (CID 7166 and the anatomy context groups).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Structure:
    """A coded anatomical structure.

    Attributes
    ----------
    name
        The vocabulary's own name, as packs and screenings write it.
    code, meaning
        SNOMED CT concept and its meaning; laterality is part of the concept where one exists.
    rgb
        Display colour, 0…255 each.
    laterality
        ``"left"``, ``"right"`` or ``None``.
    """

    name: str
    code: str
    meaning: str
    rgb: tuple[int, int, int]
    laterality: str | None = None


_ALL = (
    Structure("body", "123037004", "Body structure", (177, 122, 101)),
    Structure("lung_left", "44029006", "Left lung", (197, 165, 145), "left"),
    Structure("lung_right", "3341006", "Right lung", (172, 138, 115), "right"),
    Structure("airways", "89187006", "Airway structure", (182, 228, 255)),
    Structure("bone", "272673000", "Bone structure", (241, 214, 145)),
)

STRUCTURES: dict[str, Structure] = {structure.name: structure for structure in _ALL}
