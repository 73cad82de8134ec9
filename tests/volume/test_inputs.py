"""Whatever the one-shot command is given, series come out and the rest is named."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.dicom.image.archive import ArchiveLimits
from appliance.dicom.image.files import read_inputs
from appliance.errors import InputRefusedError


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def refused(paths, work, **arguments):
    with pytest.raises(InputRefusedError) as caught:
        read_inputs(paths, work, **arguments)
    return caught.value.reason


def zipped(paths, archive, prefix="deep/folder/"):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, prefix + path.name)
    return archive


def test_two_series_mixed_in_one_folder(tools, tmp_path, work):
    one, other = tools.Series(), tools.Series(slices=11)
    paths = one.write(tmp_path / "a") + other.write(tmp_path / "b")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, path in enumerate(paths):
        shutil.copy(path, mixed / f"{number % 7}-{number}.dcm")
    inputs = read_inputs([mixed], work)
    assert {s.series_instance_uid: len(s.headers) for s in inputs.series} == {one.series_uid: 12, other.series_uid: 11}
    assert inputs.rejected == ()


def test_folder_with_other_things(series, tmp_path, work):
    folder = tmp_path / "in"
    series.write(folder / "deep" / "er")
    (folder / "README.txt").write_text("hello")
    (folder / "fake.dcm").write_text("hello")
    (folder / "DICOMDIR").write_text("hello")
    (folder / ".hidden").write_text("hello")
    inputs = read_inputs([folder], work)
    assert len(inputs.series[0].paths) == 12
    assert [(path.name, reason.code) for path, reason in inputs.rejected] == [
        ("README.txt", "no_dicom"),
        ("fake.dcm", "no_dicom"),
    ]


def test_empty_folder(tmp_path, work):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert refused([folder], work).code == "no_dicom"


def test_text_file_named_dcm(tmp_path, work):
    (tmp_path / "a.dcm").write_text("hello")
    reason = refused([tmp_path / "a.dcm"], work)
    assert reason.code == "no_dicom"
    assert reason.text.endswith(".")


def test_path_that_does_not_exist(tmp_path, work):
    assert refused([tmp_path / "none"], work).code == "unreadable_file"


def test_file_given_twice_counts_once(series, tmp_path, work):
    paths = series.write(tmp_path / "in")
    assert len(read_inputs([tmp_path / "in", *paths], work).series[0].headers) == 12


def test_links_in_a_circle(series, tmp_path, work):
    series.write(tmp_path / "in")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to("self")
    inputs = read_inputs([tmp_path / "in"], work)
    assert len(inputs.series[0].headers) == 12
    assert [path.name for path, _ in inputs.rejected] == ["self"]


def test_series_without_uids_are_told_apart_by_folder(tools, tmp_path, work):
    for name in ("a", "b"):
        series = tools.Series()
        datasets = series.datasets()
        for ds in datasets:
            ds.SeriesInstanceUID = ds.StudyInstanceUID = ""
        series.write(tmp_path / "in" / name, datasets)
    assert [len(s.headers) for s in read_inputs([tmp_path / "in"], work).series] == [12, 12]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_no_permission_is_named_and_does_not_stop_the_rest(series, tmp_path, work):
    paths = series.write(tmp_path / "in")
    closed = paths[0].with_name("closed.dcm")
    shutil.copy(paths[0], closed)
    closed.chmod(0)
    program = (
        "import sys; from pathlib import Path; from appliance.dicom.image.files import read_inputs\n"
        "i = read_inputs([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "print(len(i.series[0].headers), [(p.name, r.code.value) for p, r in i.rejected])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "in"), str(work)]
    if os.geteuid() == 0:
        # Root may read everything: give up that capability rather than the account, which must still reach tmp_path.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv is not here")
        command = [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *command]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip().splitlines()[-1] == "12 [('closed.dcm', 'unreadable_file')]", done.stderr


def test_zip(series, tmp_path, work):
    archive = zipped(series.write(tmp_path / "in"), tmp_path / "scan.zip")
    inputs = read_inputs([archive], work)
    assert len(inputs.series[0].headers) == 12
    assert all(work in path.parents for path in inputs.series[0].paths)


def test_zip_is_told_by_content_and_names_its_entries(series, tmp_path, work):
    (tmp_path / "readme.txt").write_text("hello")
    archive = zipped([*series.write(tmp_path / "in"), tmp_path / "readme.txt"], tmp_path / "export.bin")
    inputs = read_inputs([archive], work)
    assert [path for path, _ in inputs.rejected] == [archive / "deep/folder/readme.txt"]


@pytest.mark.parametrize("name", ["../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:\\evil.dcm"])
def test_zip_with_an_escaping_path(series, tmp_path, work, name):
    archive = zipped(series.write(tmp_path / "in"), tmp_path / "scan.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"evil")
    reason = refused([archive], work)
    assert reason.code == "archive_unsafe"
    assert not list(tmp_path.rglob("evil*"))
    assert not [path for path in work.rglob("*") if path.is_file()]


def test_zip_with_a_link(tmp_path, work):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    assert refused([tmp_path / "a.zip"], work).code == "archive_unsafe"


def zeros(path, size, declared=None):
    """Write an archive with one entry of zeros, optionally with a lie about its size in the central directory."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("a.dcm", "w", force_zip64=True) as out,
    ):
        block = bytes(1 << 24)
        for _ in range(size // len(block)):
            out.write(block)
    if declared is not None:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            start = file.start_dir
        lie = data[start:].replace(size.to_bytes(4, "little"), declared.to_bytes(4, "little"))
        path.write_bytes(data[:start] + lie)
    return path


@pytest.mark.slow
def test_four_gigabytes_of_zeros(tmp_path, work):
    bomb = zeros(tmp_path / "bomb.zip", 4 << 30)
    assert bomb.stat().st_size < 64 << 20
    reason = refused([bomb], work)
    assert reason.code == "archive_too_large"
    assert not [path for path in work.rglob("*") if path.is_file()]


def test_bomb_that_lies_about_its_size(tmp_path, work):
    bomb = zeros(tmp_path / "bomb.zip", 1 << 26, declared=1000)
    assert refused([bomb], work).code in {"archive_too_large", "unreadable_file"}
    assert not [path for path in work.rglob("*") if path.is_file()]


def test_ratio_of_a_bomb(tmp_path, work):
    bomb = zeros(tmp_path / "bomb.zip", 1 << 26)
    assert refused([bomb], work, archive_limits=ArchiveLimits(ratio_from_bytes=1 << 20)).code == "archive_too_large"


def test_too_many_entries(series, tmp_path, work):
    archive = zipped(series.write(tmp_path / "in"), tmp_path / "scan.zip")
    assert refused([archive], work, archive_limits=ArchiveLimits(maximum_files=5)).code == "archive_too_large"


def test_encrypted_zip(series, tmp_path, work):
    archive = zipped(series.write(tmp_path / "in")[:1], tmp_path / "scan.zip")
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    archive.write_bytes(data)
    reason = refused([archive], work)
    assert (reason.code, "password" in reason.text) == ("unreadable_file", True)


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_cut_off_zip(series, tmp_path, work, keep):
    archive = zipped(series.write(tmp_path / "in"), tmp_path / "scan.zip")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    assert refused([archive], work).code == "unreadable_file"


def test_a_bad_archive_does_not_stop_a_good_folder(series, tmp_path, work):
    series.write(tmp_path / "in")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 rubbish")
    inputs = read_inputs([tmp_path / "bad.zip", tmp_path / "in"], work)
    assert len(inputs.series) == 1
    assert [reason.code for _, reason in inputs.rejected] == ["unreadable_file"]
