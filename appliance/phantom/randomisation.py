"""Patients and scanners drawn at random, wide enough that a network trained on them does not learn one phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from appliance.phantom.options import VERTEBRAE, Calcification, PhantomOptions, WedgeFracture

if TYPE_CHECKING:
    import numpy as np

_ORGANS = ("liver", "spleen", "stomach", "kidney_left", "kidney_right", "gallbladder", "pancreas", "bowel")
_KVPS = (80.0, 100.0, 120.0, 120.0, 120.0, 140.0)


def random_options(rng: np.random.Generator) -> PhantomOptions:
    """Draw a patient and a scan; every call gives a valid set of options.

    Parameters
    ----------
    rng
        Source of all randomness; the same state gives the same options.
    """

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    low, high = _coverage(rng)
    spacing = float(rng.choice((1.0, 1.25, 1.5, 2.0, 3.0, 5.0)))
    kernel: Literal["soft", "medium", "sharp"] = ("soft", "medium", "sharp")[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    contrast = chance(0.3)
    trabecular = between(60.0, 260.0)
    left_ml = between(50.0, 1500.0) if chance(0.15) else 0.0
    right_ml = between(50.0, 1500.0) if chance(0.15) else 0.0
    plaques = tuple(
        Calcification(vessel, between(0.1, 0.9), between(150.0, 900.0), between(1.5, 5.0), between(1.5, 8.0))
        for vessel in ("LAD", "LCX", "RCA")
        if chance(0.25)
    )
    fracture = None
    if chance(0.15):
        fracture = WedgeFracture(VERTEBRAE[int(rng.integers(4, len(VERTEBRAE)))], between(15.0, 50.0))
    return PhantomOptions(
        seed=int(rng.integers(1, 2**31)),
        slice_spacing_mm=spacing,
        slice_thickness_mm=spacing * (1.0 if chance(0.7) else 1.25),
        pixel_spacing_mm=between(0.6, 0.98),
        coverage_low_mm=low,
        coverage_high_mm=high,
        centre_left_mm=between(-25.0, 25.0),
        centre_posterior_mm=between(-25.0, 35.0),
        patient_position="HFP" if chance(0.05) else "HFS",
        contrast_in_header=contrast,
        contrast_in_image=contrast,
        kernel=kernel,
        kvp=float(rng.choice(_KVPS)),
        noise_hu=between(4.0, 45.0),
        circular_padding_hu=int(rng.choice((-1024, -2000, -3024))) if chance(0.3) else None,
        unsigned_pixels=False,
        patient_height_m=between(1.45, 1.95),
        width_scale=between(0.82, 1.22),
        depth_scale=between(0.8, 1.25),
        subcutaneous_fat_mm=between(4.0, 48.0),
        muscle_scale=between(0.65, 1.25),
        arms_down=chance(0.3),
        table=chance(0.85),
        sex="F" if chance(0.5) else "M",
        age_years=int(rng.integers(18, 95)),
        lung_hu=between(-910.0, -740.0),
        emphysema_fraction=between(0.02, 0.45) if chance(0.3) else between(0.0, 0.02),
        lung_height_scale=between(0.55, 1.12),
        effusion_left_ml=left_ml,
        effusion_right_ml=right_ml,
        trabecular_hu=trabecular,
        cortical_hu=between(380.0, 900.0),
        wedge_fracture=fracture,
        blood_hu=between(28.0, 58.0),
        heart_scale=between(0.82, 1.28),
        calcifications=plaques,
        ascending_aorta_diameter_mm=between(24.0, 48.0),
        descending_aorta_diameter_mm=between(18.0, 36.0),
        abdominal_aorta_diameter_mm=between(14.0, 40.0),
        pulmonary_trunk_diameter_mm=between(20.0, 36.0),
        liver_hu=between(5.0, 80.0),
        spleen_hu=between(38.0, 60.0),
        muscle_hu=between(25.0, 68.0),
        fat_hu=between(-120.0, -85.0),
        liver_scale=between(0.8, 1.2),
        spleen_scale=between(0.7, 1.6),
        kidney_stone_diameter_mm=between(2.0, 12.0) if chance(0.2) else 0.0,
        kidney_stone_side="left" if chance(0.5) else "right",
        missing_organs=frozenset(name for name in _ORGANS if chance(0.06)),
    )


def _coverage(rng: np.random.Generator) -> tuple[float, float]:
    """Chest, chest and abdomen, abdomen alone, or any stretch, with wandering ends."""
    kind = int(rng.choice(4, p=(0.35, 0.35, 0.15, 0.15)))
    if kind == 0:
        return float(rng.uniform(-130.0, -70.0)), float(rng.uniform(245.0, 275.0))
    if kind == 1:
        return float(rng.uniform(-330.0, -150.0)), float(rng.uniform(235.0, 300.0))
    if kind == 2:  # the third kind
        return float(rng.uniform(-330.0, -240.0)), float(rng.uniform(20.0, 90.0))
    low = float(rng.uniform(-300.0, 80.0))
    return low, low + float(rng.uniform(120.0, 300.0))
