"""Height loss against spines whose heights are known, over a designed grid of scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.endplates import body_shapes
from appliance.anatomy.height_loss import height_losses
from appliance.reasons import ReasonCode
from appliance.scan import Volume
from appliance.screenings.contract import Status, Urgency
from appliance.screenings.vertebral_fracture import SCREENING, VertebralFractureSettings, grade
from tests.screenings.example_abdomen import example_abdomen
from tests.screenings.patients import value
from tests.screenings.spines import GRID, spine_patient

SETTINGS = VertebralFractureSettings()
#: Up to 1.5 mm every endplate is clear; on thicker slices bodies are left out.
THIN = [name for name, options in GRID.items() if options.slice_thickness_mm <= 1.5]
FRACTURED = [name for name in THIN if GRID[name].wedge_fracture is not None]


def run(scan, anatomy, settings=SETTINGS):
    return SCREENING.run(scan, anatomy, settings)


@pytest.mark.parametrize(
    ("loss", "expected"), [(19.9, "none"), (20.0, "mild"), (25.0, "moderate"), (40.0, "moderate"), (40.1, "severe")]
)
def test_grades(loss, expected):
    assert grade(loss, SETTINGS) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_wedges_of_fractured_and_sound_bodies(name):
    _, anatomy, truth = spine_patient(name)
    losses = height_losses(anatomy)
    expected = {
        body.name: 100.0 * (1.0 - body.anterior_height_mm / body.posterior_height_mm) for body in truth.vertebrae
    }
    assert len(losses) >= 3
    for level in {"T12", "L1", "L2", "L3"} & losses.keys():
        # fractured bodies within 3 points; sound ones, far from any grade, a little more
        aim = 3.0 if expected[level] > 0.0 else 4.5 if name == "oblique" else 3.5
        assert losses[level].wedge_percent == pytest.approx(expected[level], abs=aim)


@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_heights_within_1_4_mm(name):
    _, anatomy, truth = spine_patient(name)
    by_name = {body.name: body for body in truth.vertebrae}
    for level, shape in body_shapes(anatomy).items():
        body = by_name[level]
        assert shape.anterior_mm == pytest.approx(body.anterior_height_mm, abs=1.4)
        assert shape.middle_mm == pytest.approx(body.middle_height_mm, abs=1.4)
        assert shape.posterior_mm == pytest.approx(body.posterior_height_mm, abs=1.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRACTURED)
def test_the_fractured_body_and_no_other(name):
    outcome = run(*spine_patient(name)[:2])
    fracture = GRID[name].wedge_fracture
    if fracture.height_loss_percent < SETTINGS.mild_percent:
        assert outcome.status is Status.NORMAL
        return
    assert [finding.site for finding in outcome.findings] == [f"vertebra_{fracture.vertebra}"]
    assert value(outcome, "vertebral_height_loss_percent") == pytest.approx(fracture.height_loss_percent, abs=3.0)


@pytest.mark.slow
def test_a_severe_fracture_is_looked_at_soon():
    assert run(*spine_patient("small, dense bone")[:2]).urgency is Urgency.SOON


@pytest.mark.slow
def test_a_sound_spine_is_normal():
    outcome = run(*spine_patient("large")[:2])
    assert outcome.status is Status.NORMAL
    assert outcome.findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2.0 mm, osteoporotic", "3.0 mm"])
def test_thick_slices_give_no_false_fracture(name):
    outcome = run(*spine_patient(name)[:2])
    assert outcome.status is not Status.FINDING
    assert outcome.reason is None or outcome.reason.code is ReasonCode.SLICE_TOO_THICK


@pytest.mark.slow
def test_slices_the_other_way_round_give_the_same():
    scan, anatomy, _ = spine_patient("base")
    affine = np.array(scan.volume.affine)
    affine[:3, 3] += affine[:3, 0] * (scan.volume.shape[0] - 1)
    affine[:3, 0] *= -1
    volume = Volume(scan.volume.hu[::-1].copy(), affine)
    again = run(replace(scan, volume=volume), Anatomy(volume, anatomy.organs))
    assert value(again, "vertebral_height_loss_percent") == pytest.approx(
        value(run(scan, anatomy), "vertebral_height_loss_percent"), abs=0.7
    )


@pytest.mark.slow
def test_the_picture_shows_three_heights_of_every_body():
    scan, anatomy, _ = spine_patient("base")
    evidence = run(scan, anatomy).evidence
    assert evidence.axis == 2
    assert len(evidence.strokes) == 3 * len(body_shapes(anatomy))
    assert evidence.mask.any()


def test_coarse_pixels_give_no_heights():
    scan, organs = example_abdomen()
    outcome = run(scan, Anatomy(scan.volume, organs))
    assert outcome.reason.code is ReasonCode.SLICE_TOO_THICK
