"""The structure vocabulary: every pack maps its outputs to these names, and every screening asks for them by name.

Codes are SNOMED CT, as used for Segmented Property Type in DICOM PS3.16 (CID 7166 and the anatomy context groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


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


_SHADE = 0.8


def _pair(name: str, code: str, meaning: str, rgb: tuple[int, int, int]) -> tuple[Structure, Structure]:
    """Left and right of a concept that says neither; the right one is shown a little darker."""
    dark = (round(rgb[0] * _SHADE), round(rgb[1] * _SHADE), round(rgb[2] * _SHADE))
    return Structure(f"{name}_left", code, meaning, rgb, "left"), Structure(
        f"{name}_right", code, meaning, dark, "right"
    )


#: SNOMED CT concepts of the vertebrae, CID 7603.
_VERTEBRAE = {
    "C1": "14806007",
    "C2": "39976000",
    "C3": "113205007",
    "C4": "5329002",
    "C5": "36978003",
    "C6": "36054005",
    "C7": "87391001",
    "T1": "64864005",
    "T2": "53733008",
    "T3": "1626008",
    "T4": "73071006",
    "T5": "56401006",
    "T6": "45296009",
    "T7": "62487009",
    "T8": "11068009",
    "T9": "82687006",
    "T10": "7610001",
    "T11": "12989004",
    "T12": "23215003",
    "L1": "66794005",
    "L2": "14293000",
    "L3": "36470004",
    "L4": "11994002",
    "L5": "49668003",
}

_ALL = (
    Structure("body", "123037004", "Body structure", (177, 122, 101)),
    Structure("lung_left", "44029006", "Left lung", (197, 165, 145), "left"),
    Structure("lung_right", "3341006", "Right lung", (172, 138, 115), "right"),
    Structure("airways", "89187006", "Airway structure", (182, 228, 255)),
    Structure("bone", "272673000", "Bone structure", (241, 214, 145)),
    # Chest
    Structure("lung_upper_lobe_left", "44714003", "Upper lobe of left lung", (208, 178, 160), "left"),
    Structure("lung_upper_lobe_right", "45653009", "Upper lobe of lung", (184, 150, 128), "right"),
    Structure("lung_middle_lobe_right", "72481006", "Middle lobe of right lung", (160, 122, 104), "right"),
    *_pair("lung_lower_lobe", "90572001", "Lower lobe of lung", (224, 186, 162)),
    Structure("trachea", "44567001", "Trachea", (150, 208, 243)),
    Structure("esophagus", "32849002", "Esophagus", (211, 171, 143)),
    Structure("thyroid_gland", "69748006", "Thyroid", (222, 154, 88)),
    Structure("heart", "80891009", "Heart", (206, 110, 84)),
    Structure("atrial_appendage_left", "33626005", "Left auricular appendage", (218, 124, 98), "left"),
    # Vessels
    Structure("aorta", "15825003", "Aorta", (224, 97, 76)),
    Structure("pulmonary_trunk", "45341000", "Trunk of pulmonary artery", (0, 122, 171)),
    Structure("pulmonary_vein", "122972007", "Pulmonary vein", (80, 120, 190)),
    Structure("brachiocephalic_trunk", "12691009", "Brachiocephalic trunk", (200, 78, 62)),
    Structure("subclavian_artery_left", "85235006", "Left subclavian artery", (214, 88, 70), "left"),
    Structure("subclavian_artery_right", "29700009", "Right subclavian artery", (190, 70, 58), "right"),
    Structure("common_carotid_artery_left", "113263003", "Left common carotid artery", (228, 108, 90), "left"),
    Structure("common_carotid_artery_right", "65355003", "Right common carotid artery", (204, 84, 72), "right"),
    *_pair("brachiocephalic_vein", "8887007", "Brachiocephalic vein", (92, 140, 200)),
    Structure("superior_vena_cava", "48345005", "Superior vena cava", (70, 112, 180)),
    Structure("inferior_vena_cava", "64131007", "Inferior vena cava", (60, 98, 168)),
    *_pair("iliac_artery", "73634005", "Common iliac artery", (232, 116, 84)),
    *_pair("iliac_vein", "46027005", "Common iliac vein", (98, 148, 208)),
    # Abdomen and pelvis
    Structure("liver", "10200004", "Liver", (221, 130, 101)),
    Structure("gallbladder", "28231008", "Gallbladder", (139, 150, 98)),
    Structure("spleen", "78961009", "Spleen", (157, 108, 162)),
    Structure("pancreas", "15776009", "Pancreas", (249, 180, 111)),
    Structure("stomach", "69695003", "Stomach", (216, 132, 105)),
    Structure("duodenum", "38848004", "Duodenum", (255, 200, 152)),
    Structure("small_bowel", "30315005", "Small intestine", (205, 167, 142)),
    Structure("colon", "71854001", "Colon", (204, 168, 120)),
    *_pair("kidney", "64033007", "Kidney", (212, 126, 151)),
    *_pair("adrenal_gland", "23451007", "Adrenal gland", (244, 186, 150)),
    Structure("urinary_bladder", "89837001", "Bladder", (222, 188, 101)),
    Structure("prostate", "41216001", "Prostate", (230, 158, 140)),
    # Nerves and bones
    Structure("brain", "12738006", "Brain", (250, 250, 225)),
    Structure("spinal_cord", "2748008", "Spinal cord", (244, 214, 49)),
    Structure("skull", "89546000", "Skull", (241, 213, 144)),
    *(
        Structure(
            f"vertebra_{level}", code, f"{level} vertebra", (226 - 16 * (number % 3), 202 - 16 * (number % 3), 134)
        )
        for number, (level, code) in enumerate(_VERTEBRAE.items())
    ),
    # the bodies without their arches; SNOMED CT's concept is the whole vertebra
    Structure("vertebral_bodies", "51282000", "Vertebra", (226, 202, 134)),
    Structure("sacrum", "54735007", "Sacrum", (212, 188, 102)),
    *_pair("ribs", "113197003", "Rib", (253, 232, 158)),
    Structure("costal_cartilages", "50016007", "Costal cartilage", (111, 184, 210)),
    Structure("sternum", "56873002", "Sternum", (244, 217, 154)),
    *_pair("clavicle", "51299004", "Clavicle", (236, 218, 166)),
    *_pair("scapula", "79601000", "Scapula", (232, 208, 150)),
    *_pair("humerus", "85050009", "Humerus", (228, 200, 140)),
    *_pair("femur", "71341001", "Femur", (240, 224, 180)),
)

STRUCTURES: dict[str, Structure] = {structure.name: structure for structure in _ALL}

_LEVELS = tuple(f"vertebra_{level}" for level in _VERTEBRAE)

#: Structure to those that it is made of. A map that holds the parts holds the whole.
PARTS: dict[str, tuple[str, ...]] = {
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "airways": ("trachea",),
    "heart": ("atrial_appendage_left",),
    "vertebral_bodies": _LEVELS,
    "bone": (
        *("vertebral_bodies", *_LEVELS, "sacrum", "ribs_left", "ribs_right", "sternum", "skull"),
        *(f"{name}_{side}" for name in ("clavicle", "scapula", "humerus", "femur") for side in ("left", "right")),
    ),
}
#: The parts without which a whole is not there; the others of ``PARTS`` are added where a map has them.
_NEEDED: dict[str, tuple[str, ...]] = {
    "lung_left": PARTS["lung_left"],
    "lung_right": PARTS["lung_right"],
    "airways": ("trachea",),
    "vertebral_bodies": ("vertebra_T12", "vertebra_L1", "vertebra_L2", "vertebra_L3"),
    "bone": ("ribs_left", "ribs_right"),
}


def spoken(name: str) -> str:
    """Return a structure's name as people say it: ``"left kidney"`` for ``kidney_left``."""
    organ, _, side = name.rpartition("_")
    words = f"{side} {organ}" if side in {"left", "right"} else name
    return words.replace("_", " ")


def with_wholes(names: Collection[str]) -> frozenset[str]:
    """Return structures together with those that they make up: five lobes are two lungs."""
    found = set(names)
    for whole, needed in _NEEDED.items():
        if found.issuperset(needed):
            found.add(whole)
    return frozenset(found)
