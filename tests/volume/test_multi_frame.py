"""Enhanced and Legacy Converted CT: frames described by functional groups."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.dicom.image.headers import read_header
from appliance.dicom.image.volume import build_scan
from appliance.errors import InputRefusedError

LEGACY_CONVERTED = "1.2.840.10008.5.1.4.1.1.2.2"


def code_for(paths):
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths)
    return caught.value.reason.code


def groups(ds):
    return ds.PerFrameFunctionalGroupsSequence


def test_frames_in_any_order(tools, series, tmp_path):
    one = build_scan(series.write(tmp_path / "a", [series.enhanced()]))
    other = build_scan(series.write(tmp_path / "b", [series.enhanced(reversed(range(12)))]))
    assert np.array_equal(one.volume.hu, other.volume.hu)
    assert [frame.frame_number for frame in one.volume.frames] == list(range(1, 13))
    assert [frame.frame_number for frame in other.volume.frames] == list(range(12, 0, -1))


def test_same_voxels_as_single_frame(series, tmp_path):
    single = build_scan(series.write(tmp_path / "a")).volume
    multi = build_scan(series.write(tmp_path / "b", [series.enhanced()])).volume
    assert np.array_equal(single.hu, multi.hu)
    assert np.allclose(single.affine, multi.affine)


def test_frames_spread_over_two_objects(series, tmp_path):
    objects = [series.enhanced(range(0, 12, 2)), series.enhanced(range(1, 12, 2))]
    assert build_scan(series.write(tmp_path, objects)).volume.shape == (12, 20, 16)


def test_legacy_converted(series, tmp_path):
    ds = series.enhanced()
    ds.SOPClassUID = LEGACY_CONVERTED
    ds.ImageType = ["MIXED", "PRIMARY", "AXIAL", "NONE"]
    assert build_scan(series.write(tmp_path, [ds])).volume.shape == (12, 20, 16)


def test_frame_own_group_wins_over_the_shared_one(series, tmp_path):
    ds = series.enhanced()
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = groups(series.enhanced())[0].PixelValueTransformationSequence
    shared.PixelValueTransformationSequence[0].RescaleIntercept = "0"
    plain = build_scan(series.write(tmp_path / "a", [series.enhanced()])).volume.hu
    assert np.array_equal(build_scan(series.write(tmp_path / "b", [ds])).volume.hu, plain)


def test_kernel_comes_from_the_reconstruction_macro(series, tmp_path):
    scan = build_scan(series.write(tmp_path, [series.enhanced()]))
    assert (scan.acquisition.kernel, scan.acquisition.kernel_family) == ("Br40", "medium")


def test_missing_position_of_one_frame(series, tmp_path):
    ds = series.enhanced()
    del groups(ds)[4].PlanePositionSequence
    assert code_for(series.write(tmp_path, [ds])) == "missing_geometry"


def test_missing_frame(series, tmp_path):
    order = [i for i in range(12) if i != 5]
    assert code_for(series.write(tmp_path, [series.enhanced(order)])) == "missing_slice"


def test_two_phases_in_one_object(series, tmp_path):
    ds = series.enhanced([*range(12), *range(12)])
    for number, frame in enumerate(groups(ds)):
        frame.FrameContentSequence[0].TemporalPositionIndex = number // 12 + 1
    pixels = np.frombuffer(ds.PixelData, np.int16).copy()
    pixels[pixels.size // 2 :] += 40
    ds.PixelData = pixels.tobytes()
    assert code_for(series.write(tmp_path, [ds])) == "mixed_geometry"


def test_two_stacks_of_different_orientation(series, tmp_path):
    ds = series.enhanced()
    orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for number, frame in enumerate(groups(ds)):
        frame.PlaneOrientationSequence = series.enhanced([0]).SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        if number > 5:
            frame.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    assert orientation
    assert code_for(series.write(tmp_path, [ds])) == "mixed_orientation"


def test_truncated(series, tmp_path):
    path = series.write(tmp_path, [series.enhanced()])[0]
    path.write_bytes(path.read_bytes()[:-10])
    assert code_for([path]) == "pixel_data_unreadable"


def test_more_frames_than_functional_groups(series, tmp_path):
    ds = series.enhanced()
    ds.NumberOfFrames = "14"
    assert build_scan(series.write(tmp_path, [ds])).volume.shape[0] == 12


def test_frames_without_any_functional_group(series, tmp_path):
    ds = series.datasets()[0]
    ds.NumberOfFrames = "12"
    ds.PixelData = ds.PixelData * 12
    assert code_for(series.write(tmp_path, [ds])) == "missing_geometry"


def test_absurd_number_of_frames_costs_nothing(series, tmp_path):
    ds = series.datasets()[0]
    ds.NumberOfFrames = "2000000000"
    assert len(read_header(series.write(tmp_path, [ds])[0]).frames) <= 65536
