"""Each thing that cannot become a scan ends in its own coded reason, a sentence with the facts."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import generate_uid

from appliance.dicom.image.volume import BuildLimits, build_scan
from appliance.errors import InputRefusedError


def refusal(paths, **arguments):
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths, **arguments)
    reason = caught.value.reason
    assert reason.text.endswith(".")
    return reason


def spoilt(series, folder, change):
    datasets = series.datasets()
    for index, ds in enumerate(datasets):
        change(index, ds)
    return refusal(series.write(folder, datasets))


def test_mr(series, tmp_path):
    def change(_, ds):
        ds.Modality, ds.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"

    reason = spoilt(series, tmp_path, change)
    assert (reason.code, "magnetic resonance" in reason.text) == ("not_ct", True)


def test_secondary_capture_of_a_ct(series, tmp_path):
    def change(_, ds):
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"

    assert spoilt(series, tmp_path, change).code == "not_ct"


def test_nothing_at_all():
    assert refusal([]).code == "too_few_slices"


def test_localizer_only(tools, tmp_path):
    series = tools.Series(slices=2, along_column=(0.0, 0.0, -1.0))

    def change(_, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    assert spoilt(series, tmp_path, change).code == "localizer"


def test_a_localizer_among_axial_slices_is_left_out(tools, series, tmp_path):
    scout = tools.Series(slices=1, along_column=(0.0, 0.0, -1.0), series_uid=series.series_uid).datasets()
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scan = build_scan(series.write(tmp_path, [*scout, *series.datasets()]))
    assert scan.volume.shape[0] == 12
    assert scan.notes == ("1 localizer image left out.",)


def test_a_secondary_capture_among_axial_slices_is_left_out(tools, series, tmp_path):
    capture = tools.Series(slices=1, series_uid=series.series_uid).datasets()
    capture[0].SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    scan = build_scan(series.write(tmp_path, [*series.datasets(), *capture]))
    assert scan.volume.shape[0] == 12
    assert scan.notes == ("1 object that is no CT image left out.",)


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "SECONDARY", "MPR"],
        ["DERIVED", "SECONDARY", "AXIAL"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MPR"],
        ["DERIVED", "PRIMARY", "AXIAL", "MIP"],
        ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"],
        ["ORIGINAL", "SECONDARY", "SCREEN SAVE"],
    ],
)
def test_reformats(series, tmp_path, image_type):
    def change(_, ds):
        ds.ImageType = image_type

    assert spoilt(series, tmp_path, change).code == "not_original_axial"


@pytest.mark.parametrize(
    "image_type",
    [
        ["ORIGINAL", "SECONDARY", "AXIAL"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"],
        ["DERIVED", "PRIMARY", "AXIAL"],
        [],
    ],
)
def test_image_types_of_real_axial_series_build(series, tmp_path, image_type):
    datasets = series.datasets()
    for ds in datasets:
        ds.ImageType = image_type
    assert build_scan(series.write(tmp_path, datasets)).volume.shape == (12, 20, 16)


def test_coronal_stack(tools, tmp_path):
    series = tools.Series(along_column=(0.0, 0.0, -1.0))
    assert refusal(series.write(tmp_path)).code == "not_original_axial"


@pytest.mark.parametrize(("slices", "step_mm"), [(9, 5.0), (20, 1.0)])
def test_too_few_slices(tools, tmp_path, slices, step_mm):
    reason = refusal(tools.Series(slices=slices, step_mm=step_mm).write(tmp_path))
    assert reason.code == "too_few_slices"
    assert "at least 10 slices over 30 mm" in reason.text


def test_the_minimum_is_a_setting(tools, tmp_path):
    paths = tools.Series(slices=3).write(tmp_path)
    limits = BuildLimits(minimum_slices=3, minimum_extent_mm=9.0)
    assert build_scan(paths, limits=limits).volume.shape[0] == 3


def test_one_slice_missing(series, tmp_path):
    paths = series.write(tmp_path)
    del paths[4]
    reason = refusal(paths)
    assert reason.code == "missing_slice"
    assert "1 slice is missing" in reason.text


def test_three_slices_missing_in_two_gaps(tools, tmp_path):
    paths = tools.Series(slices=20).write(tmp_path)
    reason = refusal([path for i, path in enumerate(paths) if i not in {4, 11, 12}])
    assert reason.code == "missing_slice"
    assert "3 slices are missing in 2 gaps" in reason.text


def test_two_pieces_with_different_spacing(tools, tmp_path):
    lower = tools.Series(slices=10, step_mm=3.0)
    upper = tools.Series(
        slices=10, step_mm=5.0, origin_mm=(-20, -15, -8), series_uid=lower.series_uid, study_uid=lower.study_uid
    )
    paths = lower.write(tmp_path / "lower") + upper.write(tmp_path / "upper")
    assert refusal(paths).code == "irregular_spacing"


def test_a_slice_out_of_place(series, tmp_path):
    def change(index, ds):
        if index == 6:
            ds.ImagePositionPatient = [-20, -15, -40 + 6 * 3 + 0.7]

    assert spoilt(series, tmp_path, change).code == "irregular_spacing"


def test_mixed_orientation(series, tmp_path):
    def change(index, ds):
        if index == 3:
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0.98, 0.199]

    assert spoilt(series, tmp_path, change).code == "mixed_orientation"


def test_mixed_size(tools, series, tmp_path):
    datasets = series.datasets()
    datasets[4] = tools.Series(columns=18, series_uid=series.series_uid, study_uid=series.study_uid).datasets()[4]
    reason = refusal(series.write(tmp_path, datasets))
    assert (reason.code, "size" in reason.text) == ("mixed_geometry", True)


def test_mixed_pixel_spacing(series, tmp_path):
    def change(index, ds):
        if index > 5:
            ds.PixelSpacing = [1.8, 2.0]

    assert spoilt(series, tmp_path, change).code == "mixed_geometry"


def test_field_of_view_that_jumps(series, tmp_path):
    def change(index, ds):
        if index > 5:
            ds.ImagePositionPatient[0] += 12

    assert spoilt(series, tmp_path, change).code == "mixed_geometry"


def test_stacked_too_obliquely(tools, tmp_path):
    assert refusal(tools.Series(slices=24, tilt_degrees=(50.0, 0.0)).write(tmp_path)).code == "mixed_geometry"


def test_two_acquisitions_interleaved(tools, series, tmp_path):
    second = tools.Series(origin_mm=(-20, -15, -38.9), series_uid=series.series_uid, study_uid=series.study_uid)
    datasets = second.datasets()
    for ds in datasets:
        ds.AcquisitionNumber = "2"
    reason = refusal(series.write(tmp_path, [*series.datasets(), *datasets]))
    assert reason.code == "mixed_geometry"
    assert "several acquisitions" in reason.text


def test_two_phases_at_the_same_places(tools, series, tmp_path):
    datasets = series.datasets() + series.datasets()
    for ds in datasets[12:]:
        ds.AcquisitionNumber = "2"
        ds.PixelData = np.frombuffer(ds.PixelData, np.int16).__add__(50).tobytes()
        ds.SOPInstanceUID = generate_uid()
    assert refusal(series.write(tmp_path, datasets)).code == "mixed_geometry"


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("StudyInstanceUID", "1.2.3.5", "study"),
        ("FrameOfReferenceUID", "1.2.3.5", "frame of reference"),
        ("ConvolutionKernel", "BONE", "kernels"),
    ],
)
def test_slices_that_were_not_made_together(series, tmp_path, keyword, value, said):
    def change(index, ds):
        if index > 5:
            setattr(ds, keyword, value)

    reason = spoilt(series, tmp_path, change)
    assert reason.code == "mixed_geometry"
    assert said in reason.text
    assert value not in reason.text


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "ConvolutionKernel", "KVP"])
def test_a_slice_that_says_nothing_joins_the_others(series, tmp_path, keyword):
    datasets = series.datasets()
    delattr(datasets[0], keyword)
    scan = build_scan(series.write(tmp_path, datasets))
    acquisition = scan.acquisition
    assert scan.frame_of_reference_uid == "1.2.3.4"
    assert (acquisition.kernel, acquisition.kernel_family, acquisition.kvp) == ("STANDARD", "soft", 120.0)


def test_mixed_tube_voltage_is_unknown_and_noted(series, tmp_path):
    datasets = series.datasets()
    for ds in datasets[6:]:
        ds.KVP = "80"
    scan = build_scan(series.write(tmp_path, datasets))
    assert scan.acquisition.kvp is None
    assert scan.notes == (
        "The slices differ in tube voltage (80 and 120 kV), so the scan counts as one of unknown voltage.",
    )


def test_two_series_given_as_one(tools, tmp_path):
    paths = tools.Series().write(tmp_path / "a") + tools.Series().write(tmp_path / "b")
    assert refusal(paths).code == "mixed_geometry"


def test_duplicate_that_differs(series, tmp_path):
    datasets = series.datasets()
    other = series.datasets()[4]
    other.PixelData = (np.frombuffer(other.PixelData, np.int16) + 7).tobytes()
    assert refusal(series.write(tmp_path, [*datasets, other])).code == "conflicting_duplicates"


def test_identical_duplicates_are_left_out(series, tmp_path):
    datasets = series.datasets()
    scan = build_scan(series.write(tmp_path, [*datasets, *datasets[3:5]]))
    assert scan.volume.shape[0] == 12
    assert scan.notes == ("2 identical copies of slices left out.",)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry(series, tmp_path, keyword):
    def change(index, ds):
        if index == 2:
            del ds[keyword]

    reason = spoilt(series, tmp_path, change)
    assert reason.code == "missing_geometry"
    assert "1 of 12" in reason.text


def test_orientation_that_is_none(series, tmp_path):
    def change(_, ds):
        ds.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]

    assert spoilt(series, tmp_path, change).code == "missing_geometry"


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_no_rescale(series, tmp_path, keyword):
    def change(_, ds):
        del ds[keyword]

    assert spoilt(series, tmp_path, change).code == "not_hounsfield"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleType", "US"), ("RescaleType", "MGML"), ("RescaleSlope", "0"), ("PhotometricInterpretation", "RGB")],
)
def test_not_hounsfield(series, tmp_path, keyword, value):
    def change(_, ds):
        setattr(ds, keyword, value)
        if value == "RGB":
            ds.SamplesPerPixel = 3
            ds.PlanarConfiguration = 0

    assert spoilt(series, tmp_path, change).code == "not_hounsfield"


def test_values_without_air_or_fat(series, tmp_path):
    def change(_, ds):
        ds.RescaleIntercept = "0"
        ds.PixelData = (np.frombuffer(ds.PixelData, np.int16) + 1024).clip(0).tobytes()

    assert spoilt(series, tmp_path, change).code == "not_hounsfield"


def test_material_map(series, tmp_path):
    def change(_, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]

    assert spoilt(series, tmp_path, change).code == "not_hounsfield"


def test_truncated_file(series, tmp_path):
    paths = series.write(tmp_path)
    for path in paths[3:5]:
        path.write_bytes(path.read_bytes()[:-100])
    reason = refusal(paths)
    assert reason.code == "pixel_data_unreadable"
    assert "2 of 12 files" in reason.text


def test_file_that_ends_before_its_pixels(series, tmp_path):
    paths = series.write(tmp_path)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00")])
    assert refusal(paths).code == "pixel_data_unreadable"


def test_too_large_is_refused_before_memory_is_asked_for(tools, tmp_path):
    series = tools.Series()
    datasets = series.datasets()
    for ds in datasets:
        ds.Rows, ds.Columns = 65535, 65535
        ds.PixelData = b"\0\0"
    assert refusal(series.write(tmp_path, datasets)).code in {"too_large", "pixel_data_unreadable"}
    limits = BuildLimits(maximum_voxels=1000)
    assert refusal(series.write(tmp_path), limits=limits).code == "too_large"


def test_no_reason_repeats_what_the_header_says(series, tmp_path):
    def change(_, ds):
        ds.PatientName, ds.Modality, ds.SOPClassUID = "SECRET^NAME", "SECRET", "1.2.840.10008.5.1.4.1.1.4"
        ds.SeriesDescription = "SECRET"

    assert "SECRET" not in spoilt(series, tmp_path, change).text
