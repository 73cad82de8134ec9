"""A head, a leg and a bottle of water are no trunk: with the shipped network's own map nothing is measured in them."""

from __future__ import annotations

import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from appliance.anatomy.mapper import map_with
from appliance.inference.engines import open_engine
from appliance.packs.pack import load
from appliance.scan import Acquisition, ContrastTag, KernelFamily, Scan, SourceFrame, Volume
from appliance.screenings.contract import Status
from tests.screenings.panel import numbers, panel, reasons
from tests.screenings.real_scans import VOLUMES

pytestmark = pytest.mark.slow

HEAD = VOLUMES.parent / "dicom" / "ge-head-gantry-tilt.zip"
#: Everything that a header can say in favour of being screened.
WILLING = Acquisition(
    kvp=120.0,
    kernel_family=KernelFamily.SOFT,
    slice_thickness_mm=1.5,
    contrast_tag=ContrastTag.NONE,
    patient_age_years=60.0,
    patient_sex="M",
)


@cache
def pack_and_engine():
    pack = load(Path(__file__).parents[2] / "models" / "trunk")
    return pack, open_engine(pack, threads=2)


def answers(hu: np.ndarray, spacing_mm: tuple[float, float, float]):
    """All ten screenings of a stack of slices, feet first, with the network's map."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = *spacing_mm, 1.0
    frames = tuple(SourceFrame(f"1.2.3.{index}", None, (0.0, 0.0, float(index))) for index in range(len(hu)))
    scan = Scan(Volume(np.ascontiguousarray(hu), affine, frames), WILLING, "1.2", "1.2.3")
    return panel(scan, map_with(scan.volume, *pack_and_engine()))[0]


def legs() -> np.ndarray:
    """Two thighs on a table: fat, muscle, a femur with marrow; 300 mm long, 1.5 mm slices, noise of 12 HU."""
    rows, columns = np.indices((256, 320), dtype=np.float32)
    plane = np.full((256, 320), -1000.0, np.float32)
    plane[(rows > 215) & (rows < 222)] = -200.0
    for middle in (95, 225):
        away = np.hypot(rows - 135, columns - middle) * 1.4
        for radius, density in ((85.0, -105.0), (70.0, 55.0), (14.0, 1100.0), (8.0, -60.0)):
            plane[away < radius] = density
    noise = np.random.default_rng(3).normal(0.0, 12.0, (200, 256, 320))
    return np.clip(np.rint(plane + noise), -1024, 3071).astype(np.int16)


def bottle() -> np.ndarray:
    """The water that a scanner is calibrated on."""
    rows, columns = np.indices((256, 256), dtype=np.float32)
    plane = np.where(np.hypot(rows - 128, columns - 128) < 100, 0.0, -1000.0)
    noise = np.random.default_rng(4).normal(0.0, 8.0, (120, 256, 256))
    return np.rint(plane + noise).astype(np.int16)


@pytest.mark.parametrize(
    ("hu", "spacing_mm"), [(legs, (1.5, 1.4, 1.4)), (bottle, (2.0, 1.2, 1.2))], ids=["legs", "bottle"]
)
def test_nothing_is_measured_in_what_is_no_trunk(hu, spacing_mm):
    outcomes = answers(hu(), spacing_mm)
    assert numbers(outcomes) == {}
    assert all(code for code in reasons(outcomes).values())
    assert all(outcome.status is not Status.FAILED for outcome in outcomes.values())


def test_nothing_is_measured_in_a_real_head(tmp_path):
    """The series itself is refused for its gaps; here its even part is put together as if it had been sent alone."""
    if not HEAD.exists():
        pytest.skip("the development data are not here")
    import pydicom

    with zipfile.ZipFile(HEAD) as archive:
        archive.extractall(tmp_path)
    images = [pydicom.dcmread(path, force=True) for path in tmp_path.rglob("*") if path.is_file()]
    images = [image for image in images if "PixelData" in image and "ImagePositionPatient" in image]
    by_height = {round(float(image.ImagePositionPatient[2]), 1): image for image in images}
    chosen = [by_height[height] for height in sorted(by_height)]
    hu = np.stack([image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept) for image in chosen])
    pixel_mm = float(chosen[0].PixelSpacing[0])
    outcomes = answers(np.clip(hu, -1024, 3071).astype(np.int16), (4.5, pixel_mm, pixel_mm))
    assert numbers(outcomes) == {}
    assert all(code for code in reasons(outcomes).values())
