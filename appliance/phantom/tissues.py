"""The phantom's own labels: what each voxel really is, and how they fold into the appliance's structures."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from appliance.phantom.options import VERTEBRAE


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
    EPICARDIAL_FAT = 39
    VERTEBRA_FIRST = 40
    VERTEBRA_LAST = 56
    CORONARY = 57


_ORGANS: tuple[tuple[str, tuple[Tissue, ...]], ...] = (
    ("lung_left", (Tissue.LUNG_LEFT, Tissue.LUNG_VESSEL_LEFT)),
    ("lung_right", (Tissue.LUNG_RIGHT, Tissue.LUNG_VESSEL_RIGHT)),
    ("airways", (Tissue.AIRWAY_LUMEN,)),
    ("bone", (Tissue.BONE,)),
    ("vertebral_bodies", ()),
    ("heart", (Tissue.HEART, Tissue.EPICARDIAL_FAT, Tissue.CORONARY)),  # what the pericardium holds
    ("aorta", (Tissue.AORTA,)),
    ("pulmonary_trunk", (Tissue.PULMONARY_TRUNK,)),
    ("esophagus", (Tissue.OESOPHAGUS,)),
    ("liver", (Tissue.LIVER,)),
    ("spleen", (Tissue.SPLEEN,)),
    ("kidney_left", (Tissue.KIDNEY_LEFT,)),
    ("kidney_right", (Tissue.KIDNEY_RIGHT,)),
    ("stomach", (Tissue.STOMACH,)),
    ("gallbladder", (Tissue.GALLBLADDER,)),
    ("pancreas", (Tissue.PANCREAS,)),
)

#: Structure to label value. Bone is all bone but the vertebral bodies.
STRUCTURE_VALUES = {"body": 1, **{name: value for value, (name, _) in enumerate(_ORGANS, start=2)}}
#: Where every vertebral body has a label of its own, as in packs that tell the levels apart.
LEVEL_VALUES = {f"vertebra_{name}": len(STRUCTURE_VALUES) + 1 + index for index, name in enumerate(VERTEBRAE)}

_NOT_BODY = (Tissue.AIR, Tissue.TABLE)


def structure_table(*, levels: bool = False, stone_side: str = "left") -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the table from :class:`Tissue` to label values: specific structures win over the body.

    Parameters
    ----------
    levels
        Give every vertebral body the label of its level, :data:`LEVEL_VALUES`.
    stone_side
        Which kidney holds the stone.
    """
    table = np.full(256, STRUCTURE_VALUES["body"], dtype=np.uint8)
    table[list(_NOT_BODY)] = 0
    for name, tissues in _ORGANS:
        table[list(tissues)] = STRUCTURE_VALUES[name]
    table[Tissue.STONE] = STRUCTURE_VALUES[f"kidney_{stone_side}"]
    bodies = [
        LEVEL_VALUES[f"vertebra_{name}"] if levels else STRUCTURE_VALUES["vertebral_bodies"] for name in VERTEBRAE
    ]
    table[Tissue.VERTEBRA_FIRST : Tissue.VERTEBRA_LAST + 1] = bodies
    return table
