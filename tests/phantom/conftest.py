from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from appliance.phantom import Calcification, PhantomOptions, WedgeFracture, render
from appliance.phantom.acquisition import patient_grid
from appliance.phantom.patient import paint_patient

# Twelve slices through the heart: enough for everything that concerns files and geometry, and quick.
SLAB = PhantomOptions(
    rows=96,
    columns=128,
    pixel_spacing_mm=3.2,
    slice_spacing_mm=3.0,
    slice_thickness_mm=3.0,
    coverage_low_mm=60.0,
    coverage_high_mm=93.0,
    emphysema_fraction=0.0,
)

RICH = PhantomOptions(
    rows=224,
    columns=256,
    pixel_spacing_mm=1.6,
    slice_spacing_mm=2.5,
    slice_thickness_mm=2.5,
    coverage_low_mm=-170.0,
    coverage_high_mm=250.0,
    noise_hu=0.0,
    emphysema_fraction=0.12,
    effusion_left_ml=400.0,
    trabecular_hu=170.0,
    trabecular_hu_by_vertebra=(("L2", 95.0),),
    wedge_fracture=WedgeFracture("T12", 35.0),
    kidney_stone_diameter_mm=9.0,
    calcifications=(
        Calcification("LAD", 0.35, 420.0, 5.0, 7.5),
        Calcification("LCX", 0.6, 260.0, 3.5, 5.0),
        Calcification("RCA", 0.5, 180.0, 4.0, 2.5),
    ),
)


@pytest.fixture
def slab():
    return SLAB


@pytest.fixture(scope="session")
def rich():
    """Options, noise-free volume, truth."""
    volume, truth = render(RICH)
    return RICH, volume, truth


@pytest.fixture(scope="session")
def rich_canvas():
    return paint_patient(RICH, patient_grid(RICH))


@pytest.fixture(scope="session")
def fine_slab():
    """The slab with margins above and below, noise-free and finely sliced: a reference for other geometries."""
    options = replace(
        SLAB,
        noise_hu=0.0,
        slice_spacing_mm=1.5,
        slice_thickness_mm=3.0,
        coverage_low_mm=15.0,
        coverage_high_mm=140.0,
        table=False,
    )
    return render(options)[0]


@pytest.fixture
def read_series():
    def read(folder):
        return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]

    return read


@pytest.fixture
def hounsfield():
    def convert(instance):
        slope, intercept = float(instance.RescaleSlope), float(instance.RescaleIntercept)
        return np.rint(instance.pixel_array * slope + intercept).astype(np.int16)

    return convert
