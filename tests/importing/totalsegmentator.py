"""Names of TotalSegmentator's classes, task ``total`` of version 2, by the five part models that give them."""

_SIDES = ("left", "right")
_SPINE = [f"L{n}" for n in range(5, 0, -1)] + [f"T{n}" for n in range(12, 0, -1)] + [f"C{n}" for n in range(7, 0, -1)]


def _pairs(*names: str) -> list[str]:
    return [f"{name}_{side}" for name in names for side in _SIDES]


PARTS = {
    "organs": [
        *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas"),
        *("adrenal_gland_right", "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
        *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea"),
        *("thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate"),
        *_pairs("kidney_cyst"),
    ],
    "vertebrae": ["sacrum", "vertebrae_S1", *(f"vertebrae_{level}" for level in _SPINE)],
    "cardiac": [
        *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk"),
        *_pairs("subclavian_artery", "common_carotid_artery", "brachiocephalic_vein"),
        *("atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava", "portal_vein_and_splenic_vein"),
        *_pairs("iliac_artery", "iliac_vena"),
    ],
    "muscles": [
        *_pairs("humerus", "scapula", "clavicula", "femur", "hip"),
        "spinal_cord",
        *_pairs("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas"),
        *("brain", "skull"),
    ],
    "ribs": [*(f"rib_{side}_{number}" for side in _SIDES for number in range(1, 13)), "sternum", "costal_cartilages"],
}
ALL = [name for names in PARTS.values() for name in names]
