"""The truth against measurements on the rendered, noise-free scan, made here from scratch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from appliance.phantom import Calcification, PhantomOptions, render
from appliance.phantom.frame import Frame
from appliance.phantom.lesions import density_weight, digitise
from appliance.phantom.mediastinum import Mediastinum
from appliance.phantom.tissues import Tissue


def around(volume, centre_mm, radius_mm):
    """Densities in a box around a place, and which of them lie in a ball."""
    middle = volume.to_index(np.asarray(centre_mm, dtype=float))
    reach = radius_mm / np.array(volume.spacing_mm) + 1.0
    low = np.maximum(np.floor(middle - reach).astype(int), 0)
    high = np.minimum(np.ceil(middle + reach).astype(int) + 1, volume.shape)
    index = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    inside = np.linalg.norm(volume.to_patient_mm(index.astype(float)) - np.asarray(centre_mm), axis=-1) < radius_mm
    return volume.hu[tuple(map(slice, low, high))], inside


def test_lung_volume_by_threshold(rich):
    _, volume, truth = rich
    air = volume.hu < -500
    labels, _ = ndimage.label(air)
    sizes = np.bincount(labels.ravel())
    border = np.unique(np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel(), labels[:, :, 0].ravel()]))
    sizes[border] = 0
    chest = labels == int(np.argmax(sizes))
    filled = ndimage.binary_closing(chest, iterations=3)
    measured = filled.sum() * volume.voxel_ml
    expected = truth.volumes_ml["lung_left"] + truth.volumes_ml["lung_right"] + truth.volumes_ml["airways"]
    assert measured == pytest.approx(expected, rel=0.06)


def test_emphysema_is_the_chosen_fraction(rich):
    options, volume, truth = rich
    assert truth.laa950_percent == pytest.approx(100.0 * options.emphysema_fraction, rel=0.05)
    lungs_ml = truth.volumes_ml["lung_left"] + truth.volumes_ml["lung_right"]
    labels, _ = ndimage.label(volume.hu < -500)
    outside = np.unique(labels[:, [0, -1]])
    body_air = (volume.hu < -950) & ~np.isin(labels, outside)
    # The windpipe and the stomach's gas are far below −990; emphysema is not.
    emphysema = body_air & ~ndimage.binary_dilation(volume.hu < -988, iterations=2)
    measured = 100.0 * emphysema.sum() * volume.voxel_ml / lungs_ml
    assert measured == pytest.approx(truth.laa950_percent, rel=0.2)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3])
def test_emphysema_fraction_is_met_in_a_chest_slab(slab, fraction):
    _, truth = render(replace(slab, emphysema_fraction=fraction, noise_hu=0.0))
    assert truth.laa950_percent == pytest.approx(100.0 * fraction, rel=0.08, abs=0.02)


def agatston(volume, centre_mm, radius_mm):
    """Score around a place by Agatston's own recipe: islands per slice, area, peak."""
    hu, near = around(volume, centre_mm, radius_mm)
    area_mm2 = volume.spacing_mm[1] * volume.spacing_mm[2]
    score = 0.0
    for image, mask in zip(hu, near, strict=True):
        islands, count = ndimage.label((image >= 130) & mask, np.ones((3, 3)))
        for island in range(1, count + 1):
            pixels = image[islands == island]
            if pixels.size * area_mm2 >= 1.0:
                score += pixels.size * area_mm2 * density_weight(float(pixels.max()))
    return score * volume.spacing_mm[0] / 3.0


def test_agatston_score_is_exact(rich):
    _, volume, truth = rich
    scores = [agatston(volume, lesion.centre_mm, 9.0) for lesion in truth.lesions]
    assert scores == pytest.approx([lesion.agatston_score for lesion in truth.lesions])
    assert sum(scores) == pytest.approx(truth.agatston_score)
    assert truth.agatston_score > 50.0


def test_agatston_definition_by_hand(slab):
    plaque = Calcification("LAD", 0.5, 350.0, 20.0, 6.0)
    (lesion,) = digitise(replace(slab, calcifications=(plaque,)))
    assert lesion.slices == 2
    assert lesion.area_mm2 == pytest.approx(math.pi * 100.0, rel=0.1)
    assert lesion.agatston_score == pytest.approx(2 * lesion.area_mm2 * 3)


@pytest.mark.parametrize(
    ("peak_hu", "weight"), [(129, 0), (130, 1), (199, 1), (200, 2), (300, 3), (399, 3), (400, 4), (1200, 4)]
)
def test_density_weights(peak_hu, weight):
    assert density_weight(peak_hu) == weight


def test_touching_plaques_are_refused(slab):
    plaques = (Calcification("LAD", 0.5), Calcification("LAD", 0.52))
    with pytest.raises(ValueError, match="touch"):
        digitise(replace(slab, calcifications=plaques))


def test_no_calcium_means_no_dense_voxel_in_the_heart(slab):
    volume, truth = render(replace(slab, noise_hu=0.0))
    assert truth.agatston_score == 0.0
    assert agatston(volume, (20.0, -40.0, 75.0), 40.0) == 0.0


@pytest.mark.parametrize(("vertebra", "expected"), [("L1", 170.0), ("L2", 95.0)])
def test_trabecular_density(rich, vertebra, expected):
    _, volume, truth = rich
    body = next(v for v in truth.vertebrae if v.name == vertebra)
    centre = np.add(body.centre_mm, (0.0, -5.0, 0.0))
    hu, inside = around(volume, centre, 6.0)
    assert hu[inside].mean() == pytest.approx(expected, abs=8.0)
    assert body.trabecular_hu == expected


def test_wedge_fracture_lowers_the_front_only(rich, rich_canvas):
    options, _, truth = rich
    body = next(v for v in truth.vertebrae if v.name == "T12")
    assert body.anterior_height_mm == pytest.approx(0.65 * body.posterior_height_mm, abs=1e-3)
    grid = rich_canvas.grid
    label = Tissue.VERTEBRA_FIRST + 11
    x = round((0.0 - grid.origin_mm[2]) / grid.spacing_mm[2])
    sagittal = rich_canvas.tissue[:, :, x] == label
    heights = sagittal.sum(axis=0) * grid.spacing_mm[0]
    rows = np.flatnonzero(heights > 0)
    front, back = heights[rows[2] : rows[2] + 3].mean(), heights[rows[-5] : rows[-5] + 3].mean()
    assert front / back == pytest.approx(0.68, abs=0.13)
    assert options.wedge_fracture.vertebra in truth.wedge_height_loss_percent


def test_healthy_vertebral_heights(rich, rich_canvas):
    _, _, truth = rich
    grid = rich_canvas.grid
    x = round((8.0 - grid.origin_mm[2]) / grid.spacing_mm[2])
    for name, number in (("L1", 12), ("T8", 7)):
        body = next(v for v in truth.vertebrae if v.name == name)
        column = rich_canvas.tissue[:, round((body.centre_mm[1] - grid.origin_mm[1]) / grid.spacing_mm[1]), x]
        measured = np.count_nonzero(column == Tissue.VERTEBRA_FIRST + number) * grid.spacing_mm[0]
        assert measured == pytest.approx(body.middle_height_mm, abs=3.0)


def test_liver_and_spleen_density(rich):
    options, volume, _ = rich
    frame = Frame(options)
    for centre, expected in (((-60.0, 10.0, -80.0), options.liver_hu), ((-60.0, 22.0, 94.0), options.spleen_hu)):
        z, y, x = frame.point(*centre)
        hu, inside = around(volume, (x, y, z), 9.0)
        assert np.median(hu[inside]) == pytest.approx(expected, abs=4.0)


def test_kidney_stone(rich):
    options, volume, truth = rich
    hu, inside = around(volume, truth.kidney_stone_centre_mm, 12.0)
    stone = (hu > 370) & inside
    volume_mm3 = stone.sum() * volume.voxel_ml * 1000.0
    diameter = 2.0 * (volume_mm3 * 3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)
    assert diameter == pytest.approx(options.kidney_stone_diameter_mm, abs=1.0)


@pytest.mark.slow
def test_effusion_volume(rich):
    options, volume, truth = rich
    assert truth.effusion_left_ml == pytest.approx(options.effusion_left_ml, rel=0.01)
    assert truth.effusion_right_ml == 0.0
    dry, _ = render(replace(options, effusion_left_ml=0.0))
    # Fluid takes the place of lung, and of a film of fat along the wall; half way from fat to fluid is the border.
    changed = (dry.hu < -46) & (volume.hu > -46)
    # Vessels that drown do not change from air to fluid, hence the generous lower side.
    assert changed.sum() * volume.voxel_ml == pytest.approx(400.0, rel=0.12)


@pytest.mark.parametrize("part", ["ascending", "descending", "abdominal"])
def test_aortic_diameter(rich, rich_canvas, part):
    options, _, truth = rich
    mediastinum = Mediastinum(Frame(options))
    chosen = getattr(mediastinum, f"{part}_part")
    course = mediastinum.aorta
    diameters = []
    for k in np.flatnonzero(chosen)[3:-3:4]:
        direction = course[k + 1, :3] - course[k - 1, :3]
        direction /= np.linalg.norm(direction)
        rays = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
        first = np.cross(direction, [0.3, 0.5, 0.8])
        first /= np.linalg.norm(first)
        second = np.cross(direction, first)
        steps = np.arange(0.0, 40.0, 0.25)
        reach = []
        for angle in rays:
            places = course[k, :3] + steps[:, None] * (np.cos(angle) * first + np.sin(angle) * second)
            index = np.rint((places - rich_canvas.grid.origin_mm) / rich_canvas.grid.spacing_mm).astype(int)
            index = np.clip(index, 0, np.array(rich_canvas.grid.shape) - 1)
            aorta = rich_canvas.tissue[tuple(index.T)] == Tissue.AORTA
            reach.append(steps[np.argmin(aorta)])
        diameters.append(2.0 * np.median(reach))
    assert np.median(diameters) == pytest.approx(truth.diameters_mm[f"{part}_aorta"], abs=1.5)


def test_fat_and_muscle_areas_at_l3(rich):
    options, volume, truth = rich
    l3 = next(v for v in truth.vertebrae if v.name == "L3")
    k = round(float(volume.to_index(np.array(l3.centre_mm))[0]))
    image = volume.hu[k]
    pixel_cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100.0
    fat = ((image > -190) & (image < -30)).sum() * pixel_cm2
    areas = truth.mid_l3_areas_cm2
    expected = areas["subcutaneous_fat"] + areas["visceral_fat"] + areas["intermuscular_fat"]
    assert fat == pytest.approx(expected, rel=0.12)
    assert areas["muscle"] > 80.0
    assert options.subcutaneous_fat_mm == 16.0


@pytest.mark.slow
def test_coverage_decides_what_is_whole():
    quick = {"rows": 96, "columns": 128, "pixel_spacing_mm": 3.2, "slice_spacing_mm": 5.0, "slice_thickness_mm": 5.0}
    _, chest = render(PhantomOptions(**quick, coverage_low_mm=-90.0, coverage_high_mm=250.0))
    _, cut = render(PhantomOptions(**quick, coverage_low_mm=0.0, coverage_high_mm=250.0))
    assert chest.lungs_whole
    assert not cut.lungs_whole
    assert chest.covered["ascending_aorta"]
    assert not chest.covered["abdominal_aorta"]
    assert cut.volumes_ml["lung_left"] < 0.95 * chest.volumes_ml["lung_left"]
    assert cut.mid_l3_areas_cm2 is None


@pytest.mark.slow
def test_noise_has_the_chosen_size_and_colour(slab):
    quiet, _ = render(replace(slab, noise_hu=0.0, rows=128))
    sd, colour = [], []
    for kernel in ("soft", "sharp"):
        noisy, _ = render(replace(slab, noise_hu=20.0, rows=128, kernel=kernel, pixel_spacing_mm=1.0))
        clean, _ = render(replace(slab, noise_hu=0.0, rows=128, kernel=kernel, pixel_spacing_mm=1.0))
        noise = (noisy.hu.astype(float) - clean.hu)[:, 48:80, 48:80]
        sd.append(noise.std())
        colour.append(np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var())
    assert quiet.hu.min() >= -1024
    assert 12.0 < sd[0] < 24.0
    assert sd[1] > 2.0 * sd[0]
    assert colour[0] > 0.3 > colour[1]
