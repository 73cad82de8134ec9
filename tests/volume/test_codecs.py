"""Compressed pixel data: lossless codecs give the uncompressed values, damage gives a refusal."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from appliance.dicom.image.codec_process import CodecError, CodecProcess
from appliance.dicom.image.codecs import FrameFormat
from appliance.dicom.image.headers import read_header
from appliance.dicom.image.pixels import PixelDataError, read_stored_values
from appliance.dicom.image.volume import build_scan
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
@pytest.mark.parametrize("cut", [8, 120])
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "largest_error_hu"),
    [
        (["dcmcjpeg", "+e1"], 0),  # lossless, first-order prediction
        (["dcmcjpeg", "+el"], 0),  # lossless, any predictor
        (["dcmcjpls", "+el"], 0),
        (["dcmcjpls", "+en", "+md", "2"], 2),
        (["dcmcrle"], 0),
    ],
)
def test_files_compressed_by_dcmtk(tools, tmp_path, command, largest_error_hu):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not here")
    series = tools.Series(rows=64, columns=48, signed=False, bits_stored=12, spacing_mm=(0.8, 0.7))
    plain = build_scan(series.write(tmp_path / "a")).volume.hu
    paths = []
    for path in sorted((tmp_path / "a").iterdir()):
        paths.append(tmp_path / path.name)
        subprocess.run([*command, str(path), str(paths[-1])], check=True, capture_output=True)
    hu = build_scan(paths).volume.hu
    assert np.abs(hu.astype(int) - plain).max() <= largest_error_hu


def test_twelve_bit_extended_jpeg_is_refused(tools, tmp_path):
    """Its one free decoder gives wrong values, which is worse than none."""
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg is not here")
    series = tools.Series(signed=False, bits_stored=12)
    paths = []
    for path in series.write(tmp_path / "a"):
        paths.append(tmp_path / path.name)
        subprocess.run(["dcmcjpeg", "+ee", str(path), str(paths[-1])], check=True, capture_output=True)
    with pytest.raises(InputRefusedError) as caught:
        build_scan(paths)
    assert caught.value.reason.code == "pixel_data_unreadable"
    assert "12-bit lossy JPEG" in caught.value.reason.text


def form(**changes):
    values = {
        "transfer_syntax_uid": str(JPEGLSLossless),
        "rows": 20,
        "columns": 16,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": 1,
        "bits_allocated": 16,
        "bits_stored": 16,
    }
    return FrameFormat(**(values | changes))


@pytest.fixture
def codec():
    process = CodecProcess()
    yield process
    process.close()


def jpeg_ls(series, folder, tools):
    path = compressed(series, folder, tools, JPEGLSLossless)[0]
    return next(generate_frames(dcmread(path).PixelData, number_of_frames=1)), series.stored(0)


def test_codec_process_survives_a_frame_it_cannot_read(tools, series, tmp_path, codec):
    frame, values = jpeg_ls(series, tmp_path / "a", tools)
    with pytest.raises(CodecError):
        codec.decode(b"rubbish", form())
    assert np.array_equal(codec.decode(frame, form()), values)


def test_codec_process_that_died_is_started_again(tools, series, tmp_path, codec):
    frame, values = jpeg_ls(series, tmp_path / "a", tools)
    codec.decode(frame, form())
    codec._process.kill()
    codec._process.wait()
    with pytest.raises(CodecError):
        codec.decode(frame, form())
    assert np.array_equal(codec.decode(frame, form()), values)


def test_codec_process_refuses_an_image_of_another_size(tools, series, tmp_path, codec):
    frame, _ = jpeg_ls(series, tmp_path / "a", tools)
    with pytest.raises(CodecError):
        codec.decode(frame, form(rows=21))


def test_no_codec_process_is_left_behind(tools, series, tmp_path):
    paths = compressed(series, tmp_path / "b", tools, JPEGLSLossless)
    before = {child.pid for child in psutil.Process().children()}
    build_scan(paths)
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CT1_JPLL", "CT2_J2KI", "CT2_JLSL", "CT2_RLE"])
def test_damage_within_a_compressed_image_never_ends_this_process(tmp_path, real_scans, codec, name):
    """GDCM is known to end its process on some of these."""
    whole = (real_scans / "codecs" / f"{name}.dcm").read_bytes()
    start = read_header(real_scans / "codecs" / f"{name}.dcm").pixel_data.offset
    dice = random.Random(3)
    damaged = tmp_path / "damaged.dcm"
    for _ in range(12):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 3, 30])):
            data[dice.randrange(start + 16, start + 800)] = dice.randrange(256)
        damaged.write_bytes(data)
        with contextlib.suppress(PixelDataError):
            for _, values in read_stored_values(read_header(damaged), codec):
                assert values.shape == (512, 512)


DECODES_FROM_ANYWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from appliance.dicom.image.codec_process import CodecProcess
from appliance.dicom.image.codecs import FrameFormat
segment = bytes([15, *range(16)])  # one run of sixteen literal bytes (PS3.5 G.3.1)
frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + segment + bytes(1)
process = CodecProcess()
print(process.decode(frame, FrameFormat("1.2.840.10008.1.2.5", 4, 4, "MONOCHROME2", 0, 8, 8)).sum())
process.close()
"""


def test_the_process_finds_the_package_where_its_parent_found_it():
    """An interpreter in which the package is not installed, started elsewhere, with only the parent's path to it."""
    root = Path(__file__).resolve().parents[2]
    interpreter = getattr(sys, "_base_executable", sys.executable)
    environment = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": "/usr/bin:/bin"}
    command = [interpreter, "-c", DECODES_FROM_ANYWHERE, str(root)]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(sum(range(16))), done.stderr
