"""Signs, bits, padding and slopes: each trap has its own test."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.dicom.image.volume import build_scan


def built(series, folder, change):
    datasets = series.datasets()
    for index, ds in enumerate(datasets):
        change(index, ds)
    return build_scan(series.write(folder, datasets))


def expected_hu(tools, series):
    return np.stack([np.rint(tools.anatomy_hu(series.voxels_mm(i))) for i in range(series.slices)])


@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (True, 12), (False, 12), (False, 16)])
def test_signed_and_unsigned(tools, tmp_path, signed, bits):
    series = tools.Series(signed=signed, bits_stored=bits)
    assert np.array_equal(build_scan(series.write(tmp_path)).volume.hu, expected_hu(tools, series))


def test_sign_extension_of_twelve_bits(tools, tmp_path):
    """Signed 12-bit data whose upper four bits are not the sign: an overlay, or a careless writer."""
    series = tools.Series(bits_stored=12, intercept=0.0)

    def change(_, ds):
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) & 0x0FFF).tobytes()

    assert np.array_equal(built(series, tmp_path, change).volume.hu, expected_hu(tools, series))


def test_overlay_in_the_upper_bits(tools, tmp_path):
    series = tools.Series(signed=False, bits_stored=12)

    def change(_, ds):
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) | 0x8000).tobytes()

    assert np.array_equal(built(series, tmp_path, change).volume.hu, expected_hu(tools, series))


def test_bits_at_the_top_of_the_word(tools, tmp_path):
    series = tools.Series(signed=False, bits_stored=12)

    def change(_, ds):
        ds.HighBit = 15
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) << 4).tobytes()

    assert np.array_equal(built(series, tmp_path, change).volume.hu, expected_hu(tools, series))


def test_rescale_of_each_slice_is_its_own(tools, tmp_path):
    series = tools.Series()

    def change(index, ds):
        slope = 0.5 + 0.1 * index
        ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.6f}", str(-1000 + index)
        ds.PixelData = series.stored(index, slope, -1000 + index).tobytes()

    hu = built(series, tmp_path, change).volume.hu
    assert np.abs(hu - expected_hu(tools, series)).max() <= 1


def test_padding_below_air_becomes_air(tools, tmp_path):
    series = tools.Series()

    def change(_, ds):
        ds.add_new(0x00280120, "SS", -2000)
        values = np.frombuffer(ds.PixelData, np.int16).copy()
        values[:10] = -2000
        ds.PixelData = values.tobytes()

    hu = built(series, tmp_path, change).volume.hu
    assert (hu.reshape(12, -1)[:, :10] == -1024).all()
    assert (hu.reshape(12, -1)[:, 10:] == expected_hu(tools, series).reshape(12, -1)[:, 10:]).all()


def test_padding_that_does_not_fit_the_stored_bits(tools, tmp_path):
    """63536, the unsigned word of -2000, in unsigned 12-bit data: masked to 12 bits it would look like bone."""
    series = tools.Series(signed=False, bits_stored=12)

    def change(_, ds):
        ds.add_new(0x00280120, "US", 63536)
        values = np.frombuffer(ds.PixelData, np.uint16).copy()
        values[:10] = 63536
        ds.PixelData = values.tobytes()

    assert (built(series, tmp_path, change).volume.hu.reshape(12, -1)[:, :10] == -1024).all()


def test_padding_range(tools, tmp_path):
    series = tools.Series(intercept=0.0)

    def change(_, ds):
        ds.add_new(0x00280120, "SS", 3100)
        ds.add_new(0x00280121, "SS", 3200)
        values = np.frombuffer(ds.PixelData, np.int16).copy()
        values[:10] = 3150
        ds.PixelData = values.tobytes()

    assert (built(series, tmp_path, change).volume.hu.reshape(12, -1)[:, :10] == -1024).all()


def test_padding_that_means_tissue_makes_no_holes(tools, tmp_path):
    """Padding 0 with intercept 0 is water: believed in the corners only."""
    series = tools.Series(intercept=0.0)

    def change(_, ds):
        ds.add_new(0x00280120, "SS", 0)
        values = np.frombuffer(ds.PixelData, np.int16).reshape(20, 16).copy()
        values[0, 0] = values[10, 8] = 0
        ds.PixelData = values.tobytes()

    hu = built(series, tmp_path, change).volume.hu
    assert (hu[:, 0, 0] == -1024).all()
    assert (hu[:, 10, 8] == 0).all()


def test_values_are_clipped_to_air_and_to_int16(tools, tmp_path):
    series = tools.Series()

    def change(_, ds):
        ds.RescaleSlope = "2"
        values = np.frombuffer(ds.PixelData, np.int16).copy()
        values[:4] = (-32768, -1000, 32767, 20000)
        ds.PixelData = values.tobytes()

    hu = built(series, tmp_path, change).volume.hu
    assert hu[0].ravel()[:4].tolist() == [-1024, -1024, 32767, 32767]


def test_inverted_display_changes_no_value(tools, tmp_path):
    series = tools.Series()

    def change(_, ds):
        ds.PhotometricInterpretation = "MONOCHROME1"

    scan = built(series, tmp_path, change)
    assert np.array_equal(scan.volume.hu, expected_hu(tools, series))
    assert any("MONOCHROME1" in note for note in scan.notes)


def test_the_volume_is_read_only_and_contiguous(series, tmp_path):
    hu = build_scan(series.write(tmp_path)).volume.hu
    assert hu.flags.c_contiguous
    assert not hu.flags.writeable


def test_progress_reaches_the_end(series, tmp_path):
    seen = []
    build_scan(series.write(tmp_path), on_progress=lambda done, total: seen.append((done, total)))
    assert max(seen) == (12, 12)


def test_acquisition_is_read(series, tmp_path):
    def change(_, ds):
        ds.PatientAge, ds.PatientSex, ds.PatientSize = "063Y", "F", "1.62"
        ds.SeriesDescription = "胸部平扫".encode("gb18030").decode("latin-1")

    acquisition = built(series, tmp_path, change).acquisition
    assert (acquisition.patient_age_years, acquisition.patient_sex, acquisition.patient_height_m) == (63.0, "F", 1.62)
    assert (acquisition.kvp, acquisition.kernel, acquisition.kernel_family) == (120.0, "STANDARD", "soft")
    assert (acquisition.contrast_tag, acquisition.patient_position) == ("none", "HFS")
