"""A series sketched from its headers is what the volume is built from."""

from __future__ import annotations

import pytest

from appliance.dicom.image.files import read_inputs
from appliance.dicom.image.stack import sketch_series
from appliance.dicom.image.volume import build_scan
from appliance.errors import InputRefusedError
from appliance.phantom import PhantomOptions, write_series

SMALL = PhantomOptions(
    slice_thickness_mm=5.0, slice_spacing_mm=5.0, rows=48, columns=48, pixel_spacing_mm=8.0, coverage_high_mm=20.0
)


def test_a_sketch_agrees_with_the_volume(tmp_path):
    write_series(SMALL, tmp_path)
    headers = read_inputs([tmp_path], tmp_path).series[0].headers
    sketch, scan = sketch_series(headers), build_scan(headers)
    assert sketch.acquisition == scan.acquisition
    assert sketch.slice_thickness_mm == scan.slice_thickness_mm
    assert sketch.extent_mm[1] - sketch.extent_mm[0] == pytest.approx((scan.volume.shape[0] - 1) * 5.0)
    assert sketch.series_instance_uid == scan.series_instance_uid
    assert sketch.frame_of_reference_uid == scan.frame_of_reference_uid
    assert sketch.acquisition_numbers


def test_an_image_that_came_twice_counts_once(tmp_path):
    write_series(SMALL, tmp_path)
    headers = read_inputs([tmp_path], tmp_path).series[0].headers
    assert sketch_series([*headers, headers[0]]) == sketch_series(headers)


def test_a_gap_is_refused_before_a_pixel_is_read(tmp_path):
    write_series(SMALL, tmp_path)
    headers = read_inputs([tmp_path], tmp_path).series[0].headers
    heights = sorted(headers, key=lambda header: header.frames[0].position_mm[2])
    with pytest.raises(InputRefusedError) as caught:
        sketch_series([*heights[:6], *heights[7:]])
    assert caught.value.reason.code == "missing_slice"


def test_two_real_reconstructions_are_one_acquisition(real_scans, tmp_path):
    found = read_inputs([real_scans / "dicom/lung-dx-a0002-two-kernels-8mm.zip"], tmp_path).series
    one, other = (sketch_series(series.headers) for series in found)
    assert one.acquisition_numbers == other.acquisition_numbers
    assert one.frame_of_reference_uid == other.frame_of_reference_uid
    assert {one.acquisition.kernel_family, other.acquisition.kernel_family} == {"medium", "sharp"}
