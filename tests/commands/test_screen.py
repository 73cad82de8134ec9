"""``appliance screen``: results for good input; for bad input a coded reason and exit code 3, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from appliance.phantom import write_series
from tests.commands.conftest import SMALL

DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"


def refusal(ran) -> str:
    """The code of a JSON refusal."""
    assert ran.exit_code == 3, ran
    return json.loads(ran.output)["refused"]["code"]


@pytest.fixture(scope="module")
def screened(patient, tmp_path_factory):
    """The small test patient, screened once with files."""
    from click.testing import CliRunner

    from appliance.cli import main

    out = tmp_path_factory.mktemp("out")
    result = CliRunner().invoke(main, ["screen", str(patient), "--json", "--out", str(out)])
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout), out


def test_the_test_patient_is_screened(screened):
    report, _ = screened
    emphysema = next(item for item in report["screenings"] if item["name"] == "emphysema")
    assert emphysema["status"] in {"finding", "normal"}
    assert report["scan"]["contrast"] == "none"
    assert "chest" in report["scan"]["coverage"]


def test_every_number_can_be_traced(screened):
    report, _ = screened
    (pack,) = report["packs"]
    assert pack["digest"].startswith("sha256:")
    assert pack["precision"] in {"int8", "bf16", "f32"}
    assert report["appliance"]["config_digest"].startswith("sha256:")
    assert report["scan"]["series_instance_uid"]


def test_a_full_disk_is_told_in_a_sentence(run, patient, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("appliance.screen.screen_series", full)
    ran = run("screen", patient, "--out", tmp_path)
    assert ran.exit_code == 2
    assert f"--out {tmp_path}: No space left on device; make room" in ran.errors


def test_files_of_the_result(screened):
    report, out = screened
    assert json.loads((out / "report.json").read_text()) == report
    assert {path.name for path in out.iterdir()} >= {
        *("report.json", "organ_map.nii.gz", "organ_map.json", "key_images", "objects")
    }
    assert (out / "key_images" / "emphysema.png").stat().st_size > 10_000


def test_people_get_a_table(run, patient):
    ran = run("screen", patient)
    assert ran.exit_code == 0
    assert "Emphysema" in ran.output
    assert "not reviewed" in ran.output


def test_a_zip_gives_the_same_numbers(run, patient, screened, tmp_path):
    archive = tmp_path / "patient.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(patient.glob("*.dcm")):
            target.write(path, f"study/{path.name}")
    report = json.loads(run("screen", archive, "--json").output)
    assert report["screenings"][0]["measurements"] == screened[0]["screenings"][0]["measurements"]


def test_two_series_in_one_folder_are_both_screened(run, patient, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(patient, folder / "first")
    write_series(replace(SMALL, seed=SMALL.seed + 1), folder / "second")
    reports = json.loads(run("screen", folder, "--json").output)
    assert len({report["scan"]["series_instance_uid"] for report in reports}) == 2
    assert all(report["screenings"] for report in reports)


def test_an_empty_folder(run, tmp_path):
    assert refusal(run("screen", tmp_path, "--json")) == "no_dicom"


def test_a_text_file_called_dcm(run, tmp_path):
    (tmp_path / "letter.dcm").write_text("Dear radiologist,")
    assert refusal(run("screen", tmp_path, "--json")) == "no_dicom"


def test_a_truncated_file_among_good_ones(run, patient, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(patient, folder)
    victim = sorted(folder.glob("*.dcm"))[40]
    victim.write_bytes(victim.read_bytes()[:-5000])
    assert refusal(run("screen", folder, "--json")) == "pixel_data_unreadable"


def test_a_missing_slice(run, patient, tmp_path):
    folder = tmp_path / "gap"
    shutil.copytree(patient, folder)
    sorted(folder.glob("*.dcm"))[50].unlink()
    assert refusal(run("screen", folder, "--json")) == "missing_slice"


def modified(patient: Path, folder: Path, count: int | None = None, **elements) -> Path:
    """A copy of the patient with some elements replaced."""
    folder.mkdir()
    for path in sorted(patient.glob("*.dcm"))[:count]:
        dataset = pydicom.dcmread(path)
        for name, value in elements.items():
            setattr(dataset, name, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(folder / path.name)
    return folder


def test_an_mr_series(run, patient, tmp_path):
    folder = modified(patient, tmp_path / "mr", 30, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    assert refusal(run("screen", folder, "--json")) == "not_ct"


def test_a_localizer_alone(run, patient, tmp_path):
    folder = modified(patient, tmp_path / "scout", 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert refusal(run("screen", folder, "--json")) == "localizer"


def test_a_header_that_says_contrast_over_a_plain_image_is_not_believed(run, patient, tmp_path):
    folder = modified(patient, tmp_path / "contrast", ContrastBolusAgent="Iohexol 350")
    ran = run("screen", folder, "--json")
    assert ran.exit_code == 0
    for item in json.loads(ran.output)["screenings"]:
        # heights of vertebrae mind no contrast, but these thick slices, of which the header tells
        heights = item["name"] == "vertebral_fracture"
        expected = ("not_run", "slice_too_thick") if heights else ("abstained", "contrast_disagrees")
        assert (item["status"], item["reason"]["code"]) == expected, item["name"]
        assert item["measurements"] == []


def test_a_zip_that_escapes_its_folder(run, tmp_path):
    archive = tmp_path / "escape.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("../../escaped.dcm", b"x")
    assert refusal(run("screen", archive, "--json")) == "archive_unsafe"
    assert not (tmp_path.parent / "escaped.dcm").exists()


def test_a_zip_bomb(run, tmp_path):
    archive = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
        target.open("zeros.dcm", "w", force_zip64=True) as stream,
    ):
        block = bytes(1 << 24)
        for _ in range(256):  # 4 GiB
            stream.write(block)
    assert archive.stat().st_size < 64 << 20
    assert refusal(run("screen", archive, "--json")) == "archive_too_large"


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root reads everything")
def test_no_read_permission(patient, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    shutil.copy(min(patient.glob("*.dcm")), folder / "secret.dcm")
    (folder / "secret.dcm").chmod(0)
    command = [sys.executable, "-m", "appliance", "screen", str(folder), "--json"]
    if os.geteuid() == 0:
        # root without the right to override permissions
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["refused"]["code"] in {"no_dicom", "unreadable_file"}
    assert "Traceback" not in done.stderr


def test_an_output_folder_that_cannot_be_made(run, patient, tmp_path):
    (tmp_path / "file").write_text("in the way")
    ran = run("screen", patient, "--out", tmp_path / "file")
    assert ran.exit_code == 2
    assert "--out" in ran.errors


def test_a_path_that_is_not_there(run, tmp_path):
    assert run("screen", tmp_path / "nowhere").exit_code in {2, 3}


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys; from appliance.cli import main; "
        "heavy = {'numpy', 'pydicom', 'pynetdicom', 'openvino', 'onnxruntime', 'scipy', 'sqlite_utils', 'pydantic'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the real scans are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("lung-dx-a0002-two-kernels-8mm.zip", {"slice_too_thick", "better_series", None}),
        ("totalsegmentator-20-slices.zip", {"contrast_enhanced", "contrast_disagrees", "slice_too_thick"}),
    ],
)
def test_real_series_that_hardly_any_screening_may_use(run, name, codes):
    """Of the two kernels only liver fat runs, on one of them; it minds neither thickness nor kernel."""
    ran = run("screen", DATA / name, "--json")
    assert ran.exit_code == 0, ran
    reports = json.loads(ran.output)
    for report in reports if isinstance(reports, list) else [reports]:
        found = {item["name"]: item["reason"]["code"] if item["reason"] else None for item in report["screenings"]}
        assert set(found.values()) <= codes
        assert {screening for screening, code in found.items() if code is None} <= {"liver_fat"}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the real scans are not beside this checkout")
@pytest.mark.parametrize("name", ["ge-head-gantry-tilt.zip", "tcga-bc-a10x-contrast-irregular-gaps.zip"])
def test_real_series_that_cannot_be_used(run, name):
    ran = run("screen", DATA / name, "--json")
    assert ran.exit_code == 3
    assert "irregular_spacing" in ran.output


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the real scans are not beside this checkout")
def test_the_real_plain_chest_reads_as_it_was_read_by_hand(run):
    """By hand: lungs 5.2 L, LAA-950 1.1 % by plain threshold, no emphysema; aorta 35 and 24 mm; liver 66 to 70 HU."""
    ran = run("screen", DATA / "lidc-0002-plain-chest.zip", "--json")
    assert ran.exit_code == 0, ran
    report = json.loads(ran.output)
    assert report["scan"]["slices"] == 261
    screenings = {item["name"]: item for item in report["screenings"]}
    for name in ("emphysema", "liver_fat", "aorta", "pleural_effusion", "coronary_calcium"):
        assert screenings[name]["status"] == "normal", screenings[name]
    values = {
        (item["name"], item["site"]): item["value"] for each in screenings.values() for item in each["measurements"]
    }
    assert values["ascending_aorta_diameter_mm", None] == pytest.approx(35.0, abs=3.0)
    assert values["descending_aorta_diameter_mm", None] == pytest.approx(24.0, abs=2.5)
    assert values["liver_mean_hu", "liver"] == pytest.approx(68.0, abs=5.0)
    assert values["spleen_mean_hu", "spleen"] == pytest.approx(52.5, abs=5.0)
    assert values["lung_volume_ml", None] == pytest.approx(5200, rel=0.06)
    assert values["laa950_percent", None] == pytest.approx(1.1, abs=0.6)


def test_of_two_reconstructions_one_is_screened_and_the_other_names_it(patient, run, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(patient, study / "soft")
    write_series(replace(SMALL, kernel="medium"), study / "medium")
    ran = run("screen", study, "--json")
    assert ran.exit_code == 0
    by_kernel = {report["scan"]["kernel_family"]: report["screenings"] for report in json.loads(ran.output)}
    for soft, medium in zip(by_kernel["soft"], by_kernel["medium"], strict=True):
        if soft["reason"] is None or soft["status"] == "abstained":
            assert medium["reason"]["code"] == "better_series", medium["name"]
    assert any(item["reason"] and item["reason"]["code"] == "better_series" for item in by_kernel["medium"])
