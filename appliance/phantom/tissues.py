"""The phantom's own labels: what each voxel really is, and how they fold into the appliance's structures."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Tissue(IntEnum):
    """True label of a voxel."""

    AIR = 0
    TABLE = 1
    SKIN = 2
    SUBCUTANEOUS_FAT = 3
    MUSCLE = 4
    INTERMUSCULAR_FAT = 5
    VISCERAL_FAT = 6
    MEDIASTINAL_FAT = 7
    LUNG_LEFT = 8
    LUNG_RIGHT = 9
    LUNG_VESSEL_LEFT = 10
    LUNG_VESSEL_RIGHT = 11
    AIRWAY_LUMEN = 12
    AIRWAY_WALL = 13
    EFFUSION_LEFT = 14
    EFFUSION_RIGHT = 15
    DIAPHRAGM = 16
    HEART = 17
    AORTA = 18
    PULMONARY_TRUNK = 19
    VESSEL = 20
    OESOPHAGUS = 21
    LIVER = 22
    SPLEEN = 23
    STOMACH = 24
    KIDNEY_LEFT = 25
    KIDNEY_RIGHT = 26
    PANCREAS = 27
    GALLBLADDER = 28
    BOWEL = 29
    BOWEL_GAS = 30
    STONE = 31
    DISC = 32
    CARTILAGE = 33
    BONE = 34
    SPINAL_CANAL = 35
    THYROID = 36
    GLAND = 37
    ADRENAL = 38
    VERTEBRA_FIRST = 40
    VERTEBRA_LAST = 56


STRUCTURE_VALUES = {"body": 1, "lung_left": 2, "lung_right": 3, "airways": 4, "bone": 5}

_NOT_BODY = (Tissue.AIR, Tissue.TABLE)


def structure_table() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the table from :class:`Tissue` to ``STRUCTURE_VALUES``: specific structures win over the body."""
    table = np.full(256, STRUCTURE_VALUES["body"], dtype=np.uint8)
    table[list(_NOT_BODY)] = 0
    for tissue, name in (
        (Tissue.LUNG_LEFT, "lung_left"),
        (Tissue.LUNG_VESSEL_LEFT, "lung_left"),
        (Tissue.LUNG_RIGHT, "lung_right"),
        (Tissue.LUNG_VESSEL_RIGHT, "lung_right"),
        (Tissue.AIRWAY_LUMEN, "airways"),
        (Tissue.BONE, "bone"),
    ):
        table[tissue] = STRUCTURE_VALUES[name]
    table[Tissue.VERTEBRA_FIRST : Tissue.VERTEBRA_LAST + 1] = STRUCTURE_VALUES["bone"]
    return table
