"""The same anatomy through any order, orientation, tilt and encoding lies at the same place in the patient."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dicom.image.volume import BuildLimits, build_scan

ANY_ORIENTATION = BuildLimits(maximum_angle_to_axial_degrees=90.0)


def signed_axes():
    axes = [sign * axis for axis in np.eye(3) for sign in (1.0, -1.0)]
    return [(a, b) for a, b in itertools.product(axes, axes) if abs(a @ b) < 0.5]


@st.composite
def orientations(draw):
    if draw(st.booleans()):
        a, b = draw(st.sampled_from(signed_axes()))
        return tuple(a), tuple(b)
    number = st.floats(-1, 1)
    q = np.array([draw(number) for _ in range(4)]) + np.array([1.5, 0, 0, 0])
    w, x, y, z = q / np.linalg.norm(q)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return first, second


tilts = st.one_of(st.just((0.0, 0.0)), st.tuples(st.floats(-25, 25), st.floats(-12, 12)))
encodings = st.sampled_from(
    [(True, 16, 1.0, 0.0), (False, 12, 1.0, -1024.0), (True, 16, 0.5, -24.5), (False, 16, 2.0, -1024.0)]
)


def worst_error_hu(scan, tools):
    """Largest difference from the anatomy over all voxels that an image reaches, and how many those are."""
    volume = scan.volume
    index = np.moveaxis(np.indices(volume.shape), 0, -1)
    truth = tools.anatomy_hu(volume.to_patient_mm(index))
    reached = volume.hu > -1024
    return np.abs(volume.hu - truth)[reached].max(), int(reached.sum())


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data(), orientation=orientations(), tilt=tilts, encoding=encodings, multi_frame=st.booleans())
def test_every_voxel_is_the_anatomy_at_its_place(tools, data, orientation, tilt, encoding, multi_frame):
    signed, bits, slope, intercept = encoding
    series = tools.Series(
        along_row=orientation[0], along_column=orientation[1], tilt_degrees=tilt,
        signed=signed, bits_stored=bits, slope=slope, intercept=intercept,
    )  # fmt: skip
    order = data.draw(st.permutations(range(series.slices)))
    with tempfile.TemporaryDirectory() as folder:
        if multi_frame:
            paths = series.write(Path(folder), [series.enhanced(order)])
        else:
            paths = [series.write(Path(folder))[i] for i in order]
        scan = build_scan(paths, limits=ANY_ORIENTATION)
    error, reached = worst_error_hu(scan, tools)
    assert error <= 2.5 + slope / 2
    assert reached >= series.slices * (series.rows - 1) * (series.columns - 1)
    assert scan.acquisition.gantry_tilt_degrees == pytest.approx(
        np.degrees(np.arctan(np.hypot(*np.tan(np.radians(tilt))))) if max(map(abs, tilt)) > 0.5 else 0.0, abs=0.6
    )


@settings(max_examples=15, deadline=None)
@given(orientation=orientations(), tilt=tilts, index=st.tuples(st.floats(0, 11), st.floats(0, 19), st.floats(0, 15)))
def test_index_and_patient_are_inverse(tools, orientation, tilt, index):
    series = tools.Series(along_row=orientation[0], along_column=orientation[1], tilt_degrees=tilt)
    with tempfile.TemporaryDirectory() as folder:
        volume = build_scan(series.write(Path(folder)), limits=ANY_ORIENTATION).volume
    there_and_back = volume.to_index(volume.to_patient_mm(np.array(index)))
    assert np.allclose(there_and_back, index, atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(orientation=orientations(), tilt=tilts)
def test_source_frames_keep_the_original_positions(tools, orientation, tilt):
    series = tools.Series(along_row=orientation[0], along_column=orientation[1], tilt_degrees=tilt)
    with tempfile.TemporaryDirectory() as folder:
        volume = build_scan(series.write(Path(folder)), limits=ANY_ORIENTATION).volume
    for slice_index, frame in enumerate(volume.frames):
        assert np.allclose(frame.position_mm, series.position_mm(slice_index), atol=1e-4)
        # The original first pixel lies in its own slice of the volume, wherever the shear moved it.
        assert volume.to_index(np.array(frame.position_mm))[0] == pytest.approx(slice_index, abs=1e-3)


@settings(max_examples=12, deadline=None)
@given(orientation=orientations(), tilt=tilts)
def test_axes_are_orthogonal(tools, orientation, tilt):
    series = tools.Series(along_row=orientation[0], along_column=orientation[1], tilt_degrees=tilt)
    with tempfile.TemporaryDirectory() as folder:
        axes = build_scan(series.write(Path(folder)), limits=ANY_ORIENTATION).volume.affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def test_order_of_files_does_not_matter(tools, series, tmp_path):
    paths = series.write(tmp_path)
    one, other = build_scan(paths), build_scan(paths[::-1])
    assert np.array_equal(one.volume.hu, other.volume.hu)
    assert one.volume.frames == other.volume.frames


def test_spacing_comes_from_positions_not_from_tags(series, tmp_path):
    datasets = series.datasets()
    for ds in datasets:
        ds.SpacingBetweenSlices, ds.SliceThickness, ds.InstanceNumber = "9.9", "9.9", "1"
    assert build_scan(series.write(tmp_path, datasets)).volume.spacing_mm == pytest.approx((3.0, 1.75, 2.0))


def test_positions_rounded_to_a_tenth_are_regular(tools, tmp_path):
    series = tools.Series(slices=60, step_mm=0.625)
    datasets = series.datasets()
    for i, ds in enumerate(datasets):
        ds.ImagePositionPatient = [-20, -15, round(-40 + i * 0.625, 1)]
    assert build_scan(series.write(tmp_path, datasets)).volume.spacing_mm[0] == pytest.approx(0.625, abs=0.002)


def test_a_tilted_volume_loses_nothing(tools, tmp_path):
    series = tools.Series(tilt_degrees=(20.0, 0.0))
    scan = build_scan(series.write(tmp_path))
    shift = (series.slices - 1) * series.step_mm * np.sin(np.radians(20)) / series.spacing_mm[0]
    assert scan.volume.shape == (12, 20 + int(np.ceil(shift)), 16)
    assert any("tilt" in note for note in scan.notes)


def test_slices_shifted_sideways_by_less_than_a_millimetre_are_moved_back(tools, series, tmp_path):
    datasets = series.datasets()
    # The anatomy stays where it is; only the image's window moved by half a pixel for one slice.
    shifted = tools.Series(origin_mm=(-19.2, -15.0, -40.0), series_uid=series.series_uid, study_uid=series.study_uid)
    datasets[5] = shifted.datasets()[5]
    error, _ = worst_error_hu(build_scan(series.write(tmp_path, datasets)), tools)
    assert error < 3.0
