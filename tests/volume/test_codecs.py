"""Compressed pixel data: lossless codecs give the uncompressed values, damage gives a refusal."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from appliance.dicom.volume import build_scan
from appliance.errors import InputRefusedError


def as_series(source, folder, tools):
    """Twelve slices made of one image, each at its own place."""
    folder.mkdir()
    paths = []
    template = dcmread(source)
    for index in range(12):
        template.ImagePositionPatient = [-150, -150, 5.0 * index]
        template.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / f"{index}.dcm")
        template.save_as(paths[-1])
    return paths


def test_uncompressed_image_has_the_values_pydicom_gives(tools, tmp_path, real_scans):
    source = real_scans / "codecs" / "CT2_UNC.dcm"
    stored = dcmread(source)
    truth = np.clip(stored.pixel_array.astype(int) + int(stored.RescaleIntercept), -1024, None)
    hu = build_scan(as_series(source, tmp_path / "a", tools)).volume.hu
    assert (hu == truth).all()


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["CT1", "CT2"])
@pytest.mark.parametrize("codec", ["J2KR", "JLSL", "JPLL", "RLE"])
def test_lossless_codecs(tools, tmp_path, real_scans, patient, codec):
    plain = build_scan(as_series(real_scans / "codecs" / f"{patient}_UNC.dcm", tmp_path / "a", tools))
    coded = build_scan(as_series(real_scans / "codecs" / f"{patient}_{codec}.dcm", tmp_path / "b", tools))
    assert np.array_equal(plain.volume.hu, coded.volume.hu)
    assert not any("with loss" in note for note in coded.notes)


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["CT1", "CT2"])
@pytest.mark.parametrize(("codec", "mean_error_hu"), [("JLSN", 4), ("J2KI", 40)])
def test_lossy_codecs_are_near_and_noted(tools, tmp_path, real_scans, patient, codec, mean_error_hu):
    plain = build_scan(as_series(real_scans / "codecs" / f"{patient}_UNC.dcm", tmp_path / "a", tools))
    coded = build_scan(as_series(real_scans / "codecs" / f"{patient}_{codec}.dcm", tmp_path / "b", tools))
    difference = np.abs(plain.volume.hu.astype(int) - coded.volume.hu)
    assert difference.mean() < mean_error_hu
    assert any("with loss" in note for note in coded.notes)


def compressed(series, folder, tools, syntax):
    paths = []
    folder.mkdir()
    for index, ds in enumerate(series.datasets()):
        path = tools.save(ds, folder / f"{index}.dcm")
        whole = dcmread(path)
        whole.compress(syntax, generate_instance_uid=False)
        whole.save_as(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_equals_uncompressed(tools, series, tmp_path, syntax):
    plain = build_scan(series.write(tmp_path / "a")).volume.hu
    assert np.array_equal(build_scan(compressed(series, tmp_path / "b", tools, syntax)).volume.hu, plain)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("cut", [8, 20, 120])
def test_cut_off_file(tools, series, tmp_path, syntax, cut):
    paths = compressed(series, tmp_path / "b", tools, syntax)
    paths[3].write_bytes(paths[3].read_bytes()[:-cut])
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths)
    assert caught.value.reason.code == "pixel_data_unreadable"
    assert "1 of 12" in caught.value.reason.text


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_image_cut_off_before_it_was_encapsulated(tools, series, tmp_path, syntax):
    paths = compressed(series, tmp_path / "b", tools, syntax)
    whole = dcmread(paths[3])
    whole.PixelData = encapsulate([whole.PixelData[16:-150]])
    whole.save_as(paths[3])
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths)
    assert caught.value.reason.code == "pixel_data_unreadable"


def test_compressed_multi_frame(tools, series, tmp_path):
    plain = build_scan(series.write(tmp_path / "a")).volume.hu
    path = series.write(tmp_path / "b", [series.enhanced()])[0]
    whole = dcmread(path)
    whole.compress(RLELossless, generate_instance_uid=False)
    whole.save_as(path)
    assert np.array_equal(build_scan([path]).volume.hu, plain)


def test_unknown_transfer_syntax(series, tmp_path, tools):
    paths = compressed(series, tmp_path / "b", tools, RLELossless)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.7\0"))
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths)
    assert caught.value.reason.code == "pixel_data_unreadable"
