"""What a screening said of a digital patient beside what is true of it, and how near the aim asks it to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.phantom.truth import Truth, VertebraTruth
    from appliance.screenings.contract import Outcome


@dataclass(frozen=True, slots=True)
class Aim:
    """How far a measurement may be from the truth.

    Attributes
    ----------
    title
        For people.
    screening
        Whose it is.
    most
        The largest error allowed, in ``unit``.
    unit
        ``"%"`` of the truth where ``relative``, else the measurement's own.
    relative
        Whether the error is a share of the truth.
    """

    title: str
    screening: str
    most: float
    unit: str
    relative: bool = False


#: The aims of the project by the name under which a comparison is filed.
AIMS = {
    "agatston": Aim("Agatston score", "coronary_calcium", 5.0, "%", relative=True),
    "laa950": Aim("LAA-950", "emphysema", 1.0, "points"),
    "trabecular": Aim("trabecular bone, each body", "bone_density", 3.0, "HU"),
    "wedge": Aim("height loss of the wedged body", "vertebral_fracture", 3.0, "points"),
    "sound": Aim("height loss of sound bodies T12 to L4", "vertebral_fracture", 3.0, "points"),
    "sound_above": Aim("height loss of sound bodies above T12", "vertebral_fracture", 3.0, "points"),
    "liver": Aim("liver", "liver_fat", 3.0, "HU"),
    "spleen": Aim("spleen", "liver_fat", 3.0, "HU"),
    "ascending": Aim("ascending aorta", "aorta", 1.0, "mm"),
    "descending": Aim("descending aorta", "aorta", 1.0, "mm"),
    "abdominal": Aim("abdominal aorta", "aorta", 1.0, "mm"),
    "trunk": Aim("pulmonary trunk", "pulmonary_artery", 1.0, "mm"),
    "effusion": Aim("pleural effusion, each side that has one", "pleural_effusion", 10.0, "%", relative=True),
    "muscle": Aim("muscle at L3", "body_composition", 3.0, "%", relative=True),
    "subcutaneous": Aim("fat under the skin at L3", "body_composition", 3.0, "%", relative=True),
    "visceral": Aim("fat inside the belly at L3", "body_composition", 3.0, "%", relative=True),
    "stone": Aim("kidney stone's volume", "kidney_stone", 10.0, "%", relative=True),
    "stone_mm": Aim("kidney stone's diameter", "kidney_stone", 1.0, "mm"),
    "no_calcium": Aim("Agatston score where there is no calcium", "coronary_calcium", 1.0, ""),
    "no_effusion": Aim("fluid on a side that has none", "pleural_effusion", 30.0, "mL"),
    "no_stone": Aim("stones in kidneys that have none", "kidney_stone", 0.0, ""),
}
_LOWER = ("T12", "L1", "L2", "L3", "L4")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number beside the truth; ``measured`` is ``None`` where the screening gave ``reason`` instead."""

    aim: str
    true: float
    measured: float | None
    reason: str

    @property
    def error(self) -> float | None:
        """Measured less true: in % of the truth where the aim is relative, else in its unit."""
        if self.measured is None:
            return None
        scale = 100.0 / self.true if AIMS[self.aim].relative else 1.0
        return (self.measured - self.true) * scale


def compare(truth: Truth, outcomes: dict[str, Outcome]) -> list[Comparison]:
    """Put every number beside the truth where the scan shows what it is about."""
    found = []
    for aim, name, site, true in _expected(truth):
        outcome = outcomes[AIMS[aim].screening]
        values = [item.value for item in outcome.measurements if (item.name, item.site) == (name, site)]
        reason = "" if values else outcome.reason.code.value if outcome.reason else "left out with a caveat"
        found.append(Comparison(aim, true, values[0] if values else None, reason))
    return found


def _expected(truth: Truth) -> Iterator[tuple[str, str, str | None, float]]:
    """Aim, measurement, its site, and what is true."""
    covered, options = truth.covered, truth.options
    if covered["heart"]:
        yield "agatston" if truth.lesions else "no_calcium", "agatston_score", None, truth.agatston_score
    if truth.lungs_whole and truth.laa950_percent is not None:
        yield "laa950", "laa950_percent", None, truth.laa950_percent
    for part in ("ascending", "descending", "abdominal"):
        if covered[f"{part}_aorta"]:
            name = f"{part}_aorta"
            yield part, f"{name}_diameter_mm", None, truth.diameters_mm[name]
    if covered["pulmonary_trunk"]:
        yield "trunk", "pulmonary_trunk_diameter_mm", None, truth.diameters_mm["pulmonary_trunk"]
    if truth.lungs_whole:
        for side in ("left", "right"):
            volume_ml = getattr(truth, f"effusion_{side}_ml")
            yield "effusion" if volume_ml else "no_effusion", f"pleural_effusion_{side}_ml", None, volume_ml
    if covered["liver"]:
        for organ in ("liver", "spleen"):
            yield organ, f"{organ}_mean_hu", organ, truth.hu[organ]
    if covered["kidneys"]:
        diameter_mm = truth.kidney_stone_diameter_mm
        if diameter_mm:
            yield "stone", "kidney_stone_volume_mm3", None, float(np.pi / 6.0 * diameter_mm**3)
            yield "stone_mm", "kidney_stone_max_mm", None, diameter_mm
        else:
            yield "no_stone", "kidney_stone_count", None, 0.0
    if truth.mid_l3_areas_cm2 is not None:
        names = {"muscle": "skeletal_muscle", "subcutaneous": "subcutaneous_fat", "visceral": "visceral_fat"}
        for aim, name in names.items():
            true = truth.mid_l3_areas_cm2[name.removeprefix("skeletal_")]
            yield aim, f"{name}_area_cm2", "vertebra_L3", true
    wedge = options["wedge_fracture"] or {}
    yield from _bones([body for body in truth.vertebrae if body.whole_in_scan], wedge.get("vertebra"))


def _bones(bodies: list[VertebraTruth], wedged: str | None) -> Iterator[tuple[str, str, str | None, float]]:
    for body in bodies:
        site = f"vertebra_{body.name}"
        if body.name != wedged and body.name in {"T12", "L1", "L2", "L3"}:
            yield "trabecular", "vertebra_trabecular_hu", site, body.trabecular_hu
        lowest = min(body.anterior_height_mm, body.middle_height_mm)
        loss = 100.0 * (1.0 - lowest / body.posterior_height_mm)
        aim = "wedge" if body.name == wedged else "sound" if body.name in _LOWER else "sound_above"
        yield aim, "vertebral_height_loss_percent", site, loss
