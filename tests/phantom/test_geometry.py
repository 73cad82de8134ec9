"""Whatever the scanner's geometry, a pixel shows the tissue that lies at its place in the patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from appliance.phantom import render, write_series
from appliance.phantom.acquisition import series_geometry


def at_places(reference, places_mm):
    index = reference.to_index(places_mm).reshape(-1, 3).T
    return map_coordinates(reference.hu.astype(np.float32), index, order=1, mode="nearest").reshape(
        places_mm.shape[:-1]
    )


def pixel_places(affine, slices, rows, columns):
    grid = np.stack(np.meshgrid(slices, rows, columns, indexing="ij"), axis=-1).astype(np.float64)
    return grid @ affine[:3, :3].T + affine[:3, 3]


def assert_same_patient(options, hu, affine, reference):
    slices, rows, columns = np.arange(hu.shape[0]), np.arange(4, hu.shape[1] - 4, 2), np.arange(4, hu.shape[2] - 4, 2)
    expected = at_places(reference, pixel_places(affine, slices, rows, columns))
    difference = np.abs(hu[np.ix_(slices, rows, columns)] - expected)
    assert np.median(difference) < 8.0
    assert np.percentile(difference, 90) < 90.0  # edges: two samplings never agree there
    wrong_way = np.abs(hu[np.ix_(slices, rows[::-1], columns)] - expected)
    assert np.mean(wrong_way) > 3.0 * np.mean(difference)
    assert options.noise_hu == 0.0


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_patient_positions_show_the_same_patient(slab, fine_slab, position):
    options = replace(slab, noise_hu=0.0, patient_position=position, table=False)
    volume, _ = render(options)
    assert_same_patient(options, volume.hu, volume.affine, fine_slab)


def test_oblique_stack_shows_the_same_patient(slab, fine_slab):
    options = replace(slab, noise_hu=0.0, table=False, oblique_degrees=7.0, coverage_low_mm=70.0, coverage_high_mm=85.0)
    volume, _ = render(options)
    columns = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    assert np.allclose(columns.T @ columns, np.eye(3), atol=1e-9)
    assert_same_patient(options, volume.hu, volume.affine, fine_slab)


@pytest.mark.parametrize("degrees", [-12.0, 15.0])
def test_tilted_gantry_leans_the_slices_but_not_the_table(slab, fine_slab, tmp_path, read_series, hounsfield, degrees):
    options = replace(
        slab, noise_hu=0.0, table=False, gantry_tilt_degrees=degrees, coverage_low_mm=70.0, coverage_high_mm=85.0
    )
    write_series(options, tmp_path)
    instances = sorted(read_series(tmp_path), key=lambda ds: float(ds.ImagePositionPatient[2]))
    positions = np.array([[float(v) for v in ds.ImagePositionPatient] for ds in instances])
    steps = np.diff(positions, axis=0)
    assert np.allclose(steps, [0.0, 0.0, options.slice_spacing_mm], atol=1e-4)
    orientation = np.array([float(v) for v in instances[0].ImageOrientationPatient])
    normal = np.cross(orientation[:3], orientation[3:])
    assert np.degrees(np.arccos(normal[2])) == pytest.approx(abs(degrees), abs=0.01)
    hu = np.stack([hounsfield(ds) for ds in instances])
    assert_same_patient(options, hu, series_geometry(options).affine(), fine_slab)


def test_render_refuses_what_is_no_regular_volume(slab):
    for changes in ({"gantry_tilt_degrees": 5.0}, {"missing_slice": 2}):
        with pytest.raises(ValueError, match="write_series"):
            render(replace(slab, **changes))


def test_spacing_of_the_volume_is_what_was_asked(slab):
    volume, _ = render(replace(slab, coverage_high_mm=66.0))
    assert volume.spacing_mm == pytest.approx((3.0, 3.2, 3.2))
    assert volume.shape == (3, 96, 128)


def test_thick_slices_blur_along_the_body(slab):
    thin, _ = render(replace(slab, noise_hu=0.0, slice_thickness_mm=1.5))
    thick, _ = render(replace(slab, noise_hu=0.0, slice_thickness_mm=12.0))
    change = [np.abs(np.diff(v.hu.astype(float), axis=0)).mean() for v in (thin, thick)]
    assert change[1] < 0.8 * change[0]
