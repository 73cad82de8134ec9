"""A header is read from anything that is DICOM, and from nothing else, without ever raising something unexpected."""

from __future__ import annotations

import contextlib
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from appliance.dicom.image.headers import UnreadableFileError, read_header
from appliance.dicom.image.volume import build_scan


def reason_for(path):
    with pytest.raises(UnreadableFileError) as caught:
        read_header(path)
    return caught.value.reason.code


def read_or_refuse(path):
    """Anything but the one exception fails the test."""
    with contextlib.suppress(UnreadableFileError):
        read_header(path)


def test_text_file_named_dcm(tmp_path):
    (tmp_path / "notes.dcm").write_text("Patient was scanned on Monday.\n" * 20)
    assert reason_for(tmp_path / "notes.dcm") == "no_dicom"


def test_empty_file(tmp_path):
    (tmp_path / "a.dcm").touch()
    assert reason_for(tmp_path / "a.dcm") == "no_dicom"


def test_preamble_and_nothing_else(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert reason_for(tmp_path / "a.dcm") == "unreadable_file"


def test_missing_file(tmp_path):
    assert reason_for(tmp_path / "none.dcm") == "unreadable_file"


def test_folder(tmp_path):
    assert reason_for(tmp_path) == "unreadable_file"


def test_every_truncation_is_handled(series, tmp_path):
    whole = series.write(tmp_path)[0].read_bytes()
    cut = tmp_path / "cut.dcm"
    for length in range(0, len(whole), 13):
        cut.write_bytes(whole[:length])
        read_or_refuse(cut)


def test_random_damage_is_handled(series, tmp_path):
    whole = series.write(tmp_path)[0].read_bytes()
    dice = random.Random(7)
    damaged = tmp_path / "damaged.dcm"
    for _ in range(300):
        data = bytearray(whole[:1200])
        for _ in range(dice.randint(1, 20)):
            data[dice.randrange(128, len(data))] = dice.randrange(256)
        damaged.write_bytes(data)
        read_or_refuse(damaged)


def test_random_bytes_after_a_preamble_are_handled(tmp_path):
    dice = random.Random(11)
    path = tmp_path / "rubbish.dcm"
    for _ in range(200):
        path.write_bytes(b"\0" * 128 + b"DICM" + dice.randbytes(dice.randint(1, 400)))
        read_or_refuse(path)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_native_transfer_syntaxes(tools, tmp_path, syntax):
    series = tools.Series()
    paths = []
    for index, ds in enumerate(series.datasets()):
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
            ds["PixelData"].VR = "OW"
        paths.append(tools.save(ds, tmp_path / f"{index}.dcm", syntax))
    truth = np.stack([np.rint(tools.anatomy_hu(series.voxels_mm(i))) for i in range(12)])
    assert np.array_equal(build_scan(paths).volume.hu, truth)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble(tools, series, tmp_path, syntax):
    paths = [tools.save(ds, tmp_path / f"{i}.dcm", syntax, preamble=False) for i, ds in enumerate(series.datasets())]
    assert not paths[0].read_bytes().startswith(b"\0" * 128)
    header = read_header(paths[0])
    assert header.transfer_syntax_uid == syntax
    assert build_scan(paths).volume.shape == (12, 20, 16)


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("GB18030", "gb18030"),
        ("GBK", "gbk"),
        ("ISO_IR 192", "utf-8"),
        ("\\ISO 2022 IR 58", "gb2312"),
        ("ISO_IR 100", "gb18030"),
        ("NONSENSE", "utf-8"),
        ("", "gb18030"),
    ],
)
def test_character_sets(tools, series, tmp_path, charset, encoding):
    ds = series.datasets()[0]
    ds.SpecificCharacterSet = charset.split("\\") if charset else None
    text = "胸部平扫".encode(encoding)
    if "2022" in charset:
        text = b"\x1b$)A" + text
    ds.SeriesDescription = "X" * len(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer's, not the reader's
        path = tools.save(ds, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"X" * len(text), text))
    assert read_header(path).contrast_tag == "none"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x00280030, b"a\\b "),
        (0x00200032, b"1\\2 "),
        (0x00281053, b"one "),
        (0x00280008, b"many"),
        (0x00101010, b"old "),
        (0x00281052, b"inf "),
    ],
)
def test_nonsense_values_are_as_good_as_absent(tools, series, tmp_path, tag, value):
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import BaseTag

    ds = series.datasets()[0]
    ds[tag] = RawDataElement(BaseTag(tag), "UN", len(value), value, 0, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer's, not the reader's
        path = tools.save(ds, tmp_path / "a.dcm")
    header = read_header(path)
    assert header.series_instance_uid == series.series_uid


def test_the_accession_number_is_not_in_the_representation(tools, series, tmp_path):
    ds = series.datasets()[0]
    ds.AccessionNumber = "A12345"
    header = read_header(tools.save(ds, tmp_path / "a.dcm"))
    assert header.accession_number == "A12345"
    assert "A12345" not in repr(header)


def meta_element(element, vr, value):
    """One element of the file meta information, explicit VR little endian with a short length."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


@pytest.mark.parametrize(
    "before_the_syntax",
    [
        meta_element(0x0000, b"UL", struct.pack("<I", 28)),
        b"",  # without the group's length
        meta_element(0x0000, b"UL", struct.pack("<I", 5)),  # with a wrong one
        meta_element(0x0003, b"UI", b"1." + b"2" * 4000),  # with the transfer syntax far behind
    ],
)
@pytest.mark.parametrize("preamble", [b"\0" * 128 + b"DICM", b""])
def test_deflated_bomb(tmp_path, monkeypatch, before_the_syntax, preamble):
    """A data set that unfolds beyond the limit must not be inflated, whatever its file meta information looks like."""
    monkeypatch.setattr("appliance.dicom.image.headers._LARGEST_INFLATED_BYTES", 1 << 22)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(struct.pack("<HH2sH", 8, 0x60, b"CS", 2) + b"CT" + bytes(1 << 23)) + packer.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(preamble + before_the_syntax + meta_element(0x10, b"UI", b"1.2.840.10008.1.2.1.99") + body)
    assert reason_for(path) == "archive_too_large"


@pytest.mark.slow
def test_deflated_bomb_of_a_gigabyte(tools, series, tmp_path):
    """1.1 GB of zeros in a deflated data set must not be inflated."""
    path = tools.save(series.datasets()[0], tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = [data[:start]]
    bomb.extend(packer.compress(bytes(1 << 24)) for _ in range(66))
    path.write_bytes(b"".join([*bomb, packer.flush()]))
    assert path.stat().st_size < 4 << 20
    assert reason_for(path) == "archive_too_large"
