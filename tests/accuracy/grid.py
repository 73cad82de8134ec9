"""The designed grid of digital patients on which every screening is judged: whole trunks, each with something of all.

Sampling, noise, kernel, orientation, sizes and densities vary together, so that a few scans try each of them several
times. What is true of a patient comes from the phantom's geometry, never from a screening's code.
"""

from __future__ import annotations

from dataclasses import replace

from appliance.phantom import Calcification, PhantomOptions, WedgeFracture

#: Densities in the middle of the score's steps, where noise does not change a plaque's weight.
_PLAQUES = (
    Calcification("LAD", 0.3, 450.0, 4.0, 6.0),
    Calcification("LCX", 0.3, 250.0, 3.5, 6.0),
    Calcification("RCA", 0.5, 165.0, 5.0, 12.0),
)
_HEAVY = (*_PLAQUES, Calcification("LAD", 0.55, 520.0, 5.0, 12.0), Calcification("RCA", 0.25, 350.0, 5.0, 9.0))
_LIGHT = (Calcification("LAD", 0.35, 350.0, 3.5, 6.0),)


def _patient(slice_mm: float, **options: object) -> PhantomOptions:
    """A chest and abdomen from L4 to above the lungs with something of everything."""
    chosen: dict[str, object] = {
        "slice_thickness_mm": slice_mm,
        "slice_spacing_mm": slice_mm,
        "calcifications": _PLAQUES,
        "emphysema_fraction": 0.08,
        "effusion_left_ml": 300.0,
        "wedge_fracture": WedgeFracture("L1", 30.0),
        "trabecular_hu_by_vertebra": (("T12", 150.0), ("L2", 120.0), ("L3", 95.0)),
        "kidney_stone_diameter_mm": 8.0,
        "liver_hu": 45.0,
        **options,
    }
    return PhantomOptions(**chosen)  # type: ignore[arg-type]


#: Oblique and tilted stacks lose their corners: they begin lower and end higher.
_WIDER = {"coverage_low_mm": -225.0, "coverage_high_mm": 275.0}
GRID: dict[str, PhantomOptions] = {
    "1.5 mm": _patient(1.5),
    "0.6 mm, chest": _patient(
        0.6,
        coverage_low_mm=-95.0,
        ascending_aorta_diameter_mm=41.0,
        pulmonary_trunk_diameter_mm=30.0,
        effusion_right_ml=150.0,
        effusion_left_ml=0.0,
        seed=2,
    ),
    "0.6 mm, abdomen": _patient(
        0.6,
        coverage_high_mm=45.0,
        abdominal_aorta_diameter_mm=27.0,
        wedge_fracture=WedgeFracture("L2", 22.0),
        kidney_stone_diameter_mm=5.0,
        seed=3,
    ),
    "1 mm, fine pixels, noise 20": _patient(
        1.0,
        pixel_spacing_mm=0.72,
        noise_hu=20.0,
        emphysema_fraction=0.2,
        liver_hu=58.0,
        kidney_stone_side="right",
        kidney_stone_diameter_mm=6.0,
        seed=4,
    ),
    "1.25 mm, low dose (noise 30)": _patient(
        1.25,
        noise_hu=30.0,
        emphysema_fraction=0.03,
        effusion_left_ml=200.0,
        wedge_fracture=WedgeFracture("L2", 25.0),
        kidney_stone_diameter_mm=9.0,
        seed=5,
    ),
    "1.25 mm, sharp kernel, noise 30": _patient(
        1.25,
        kernel="sharp",
        noise_hu=30.0,
        ascending_aorta_diameter_mm=36.0,
        pulmonary_trunk_diameter_mm=24.0,
        sex="F",
        seed=18,
    ),
    "2.5 mm thick, 1.25 mm apart, medium kernel": _patient(
        1.25,
        slice_thickness_mm=2.5,
        kernel="medium",
        liver_hu=20.0,
        descending_aorta_diameter_mm=28.0,
        wedge_fracture=WedgeFracture("T12", 40.0),
        seed=6,
    ),
    "2 mm": _patient(2.0, ascending_aorta_diameter_mm=38.0, trabecular_hu=110.0, effusion_right_ml=500.0, seed=7),
    "2 mm, prone, feet first": _patient(
        2.0, patient_position="FFP", calcifications=_LIGHT, effusion_left_ml=0.0, effusion_right_ml=400.0, seed=8
    ),
    "3 mm": _patient(3.0, calcifications=_HEAVY, abdominal_aorta_diameter_mm=24.0, emphysema_fraction=0.12, seed=9),
    "3 mm, arms down, noise 25": _patient(
        3.0, arms_down=True, noise_hu=25.0, pixel_spacing_mm=0.97, liver_hu=35.0, kidney_stone_diameter_mm=10.0, seed=10
    ),
    "5 mm": _patient(
        5.0, calcifications=_HEAVY, kidney_stone_diameter_mm=12.0, pulmonary_trunk_diameter_mm=32.0, seed=11
    ),
    "5 mm thick, 4 mm apart, oblique −12°": _patient(
        4.0,
        slice_thickness_mm=5.0,
        oblique_degrees=-12.0,
        ascending_aorta_diameter_mm=46.0,
        descending_aorta_diameter_mm=29.0,
        kidney_stone_diameter_mm=11.0,
        seed=12,
        **_WIDER,
    ),
    "1.5 mm, oblique 10°": _patient(1.5, oblique_degrees=10.0, wedge_fracture=WedgeFracture("L2", 40.0), **_WIDER),
    "2.5 mm, gantry tilt 12°, as DICOM": _patient(2.5, gantry_tilt_degrees=12.0, effusion_left_ml=250.0, **_WIDER),
    "1.5 mm, small woman, dense bone": _patient(
        1.5,
        patient_height_m=1.52,
        width_scale=0.88,
        depth_scale=0.9,
        subcutaneous_fat_mm=8.0,
        sex="F",
        trabecular_hu=230.0,
        trabecular_hu_by_vertebra=(),
        heart_scale=0.9,
        liver_scale=0.85,
        spleen_scale=0.8,
        ascending_aorta_diameter_mm=28.0,
        descending_aorta_diameter_mm=21.0,
        abdominal_aorta_diameter_mm=16.0,
        pulmonary_trunk_diameter_mm=22.0,
        effusion_left_ml=150.0,
        pixel_spacing_mm=0.7,
        seed=13,
    ),
    "2 mm, large man": _patient(
        2.0,
        patient_height_m=1.9,
        width_scale=1.15,
        depth_scale=1.15,
        subcutaneous_fat_mm=34.0,
        pixel_spacing_mm=0.98,
        noise_hu=18.0,
        heart_scale=1.1,
        liver_scale=1.1,
        ascending_aorta_diameter_mm=39.0,
        descending_aorta_diameter_mm=29.0,
        abdominal_aorta_diameter_mm=23.0,
        seed=14,
    ),
    "1.5 mm, very ill": _patient(
        1.5,
        emphysema_fraction=0.3,
        effusion_left_ml=1200.0,
        effusion_right_ml=120.0,
        trabecular_hu=60.0,
        trabecular_hu_by_vertebra=(),
        wedge_fracture=WedgeFracture("L2", 50.0),
        calcifications=_HEAVY,
        ascending_aorta_diameter_mm=50.0,
        abdominal_aorta_diameter_mm=45.0,
        pulmonary_trunk_diameter_mm=36.0,
        liver_hu=5.0,
        muscle_hu=35.0,
        seed=15,
    ),
}
#: Nothing to find: what is reported here is false.
_NOTHING = {
    "calcifications": (),
    "emphysema_fraction": 0.0,
    "effusion_left_ml": 0.0,
    "wedge_fracture": None,
    "kidney_stone_diameter_mm": 0.0,
    "liver_hu": 62.0,
    "trabecular_hu_by_vertebra": (),
}
GRID |= {
    "1.5 mm, healthy": replace(GRID["1.5 mm"], seed=16, **_NOTHING),  # type: ignore[arg-type]
    "3 mm, healthy, noise 25": replace(GRID["3 mm"], seed=17, noise_hu=25.0, **_NOTHING),  # type: ignore[arg-type]
}
