from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from appliance.phantom import render, write_series
from appliance.phantom.dicom_writer import SYNTAXES

# Type 1 and type 2 attributes of the CT Image IOD's mandatory modules (PS3.3 A.3).
TYPE_1 = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID ImageType "
    "PixelSpacing ImageOrientationPatient ImagePositionPatient SamplesPerPixel PhotometricInterpretation Rows Columns "
    "BitsAllocated BitsStored HighBit PixelRepresentation RescaleIntercept RescaleSlope PixelData"
)
TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID "
    "AccessionNumber SeriesNumber PositionReferenceIndicator Manufacturer InstanceNumber SliceThickness KVP "
    "AcquisitionNumber"
)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_instances_hold_what_the_standard_demands(slab, tmp_path, read_series):
    write_series(slab, tmp_path)
    instances = read_series(tmp_path)
    assert len(instances) == 12
    for ds in instances:
        assert ds.SOPClassUID == CTImageStorage == ds.file_meta.MediaStorageSOPClassUID
        for keyword in TYPE_1.split():
            assert not ds[keyword].is_empty, keyword
        for keyword in TYPE_2.split():
            assert keyword in ds, keyword
        assert ds.PatientPosition == "HFS"
    assert len({ds.SOPInstanceUID for ds in instances}) == 12
    assert len({(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID) for ds in instances}) == 1


def test_values_are_legal_by_the_dictionary(slab, tmp_path):
    write_series(replace(slab, coverage_high_mm=62.0), tmp_path)
    old = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        for path in tmp_path.glob("*.dcm"):
            for element in pydicom.dcmread(path).iterall():
                assert element.value is not None
    finally:
        pydicom.config.settings.reading_validation_mode = old


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmtk is not installed")
def test_dcmtk_reads_it_without_a_warning(slab, tmp_path):
    write_series(replace(slab, coverage_high_mm=62.0), tmp_path)
    done = subprocess.run(
        ["dcmdump", "--quiet", *map(str, tmp_path.glob("*.dcm"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("changes", [{}, {"multi_frame": True}, {"gantry_tilt_degrees": 10.0}])
def test_dciodvfy_finds_no_error(slab, tmp_path, changes):
    write_series(replace(slab, coverage_high_mm=66.0, **changes), tmp_path)
    path = next(tmp_path.glob("*.dcm"))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr + done.stdout


def test_same_options_give_the_same_bytes(slab, tmp_path):
    options = replace(slab, coverage_high_mm=66.0, missing_organs=frozenset({"liver", "spleen", "pancreas"}))
    write_series(options, tmp_path / "a")
    write_series(options, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_seed_gives_another_study(slab, tmp_path, read_series):
    options = replace(slab, coverage_high_mm=62.0)
    write_series(options, tmp_path / "a")
    write_series(replace(options, seed=2), tmp_path / "b")
    first, second = read_series(tmp_path / "a")[0], read_series(tmp_path / "b")[0]
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert not np.array_equal(first.pixel_array, second.pixel_array)


def test_two_reconstructions_share_study_and_frame_of_reference(slab, tmp_path, read_series):
    options = replace(slab, coverage_high_mm=62.0)
    write_series(options, tmp_path / "a")
    write_series(replace(options, kernel="sharp"), tmp_path / "b")
    first, second = read_series(tmp_path / "a")[0], read_series(tmp_path / "b")[0]
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert (first.ConvolutionKernel, second.ConvolutionKernel) == ("B30f", "B70f")


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_slice_order(slab, tmp_path, read_series, order):
    write_series(replace(slab, slice_order=order), tmp_path)
    z = [float(ds.ImagePositionPatient[2]) for ds in read_series(tmp_path)]
    ordered = {"ascending": z == sorted(z), "descending": z == sorted(z, reverse=True)}
    if order == "shuffled":
        assert not any(ordered.values())
    else:
        assert ordered[order]
    assert np.allclose(np.diff(sorted(z)), 3.0)


@pytest.mark.slow
def test_order_does_not_change_a_slice(slab, tmp_path, read_series):
    by_place = []
    for order in ("ascending", "shuffled"):
        write_series(replace(slab, slice_order=order), tmp_path / order)
        by_place.append({float(ds.ImagePositionPatient[2]): ds.pixel_array for ds in read_series(tmp_path / order)})
    assert by_place[0].keys() == by_place[1].keys()
    assert all(np.array_equal(by_place[0][z], by_place[1][z]) for z in by_place[0])


def test_missing_slice(slab, tmp_path, read_series):
    write_series(replace(slab, missing_slice=4), tmp_path)
    instances = read_series(tmp_path)
    z = sorted(float(ds.ImagePositionPatient[2]) for ds in instances)
    assert len(z) == 11
    assert np.diff(z).max() == pytest.approx(6.0)
    assert 60.0 + 4 * 3.0 not in z


def test_missing_slice_outside_the_series_is_refused(slab, tmp_path):
    with pytest.raises(ValueError, match="no slice 99"):
        write_series(replace(slab, missing_slice=99), tmp_path)


@pytest.mark.parametrize(
    ("character_set", "name", "written"),
    [
        ("ascii", "Phantom^Digital", None),
        ("gb18030", "Wang^XiaoDong=王^小东", "GB18030"),
        ("utf-8", "Zhang^San=张^三", "ISO_IR 192"),
    ],
)
def test_names_survive_their_character_set(slab, tmp_path, read_series, character_set, name, written):
    options = replace(slab, coverage_high_mm=60.5, character_set=character_set, patient_name=name)
    write_series(options, tmp_path)
    ds = read_series(tmp_path)[0]
    assert ds.get("SpecificCharacterSet") == written
    assert str(ds.PatientName) == name


@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
def test_every_transfer_syntax_holds_the_same_pixels(slab, tmp_path, read_series, hounsfield, syntax):
    options = replace(slab, coverage_high_mm=62.0, transfer_syntax=syntax)
    write_series(options, tmp_path)
    ds = read_series(tmp_path)[0]
    assert ds.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert np.array_equal(hounsfield(ds), render(options)[0].hu[0])


@pytest.mark.parametrize("unsigned", [True, False])
def test_signed_and_unsigned_pixels(slab, tmp_path, read_series, hounsfield, unsigned):
    options = replace(slab, coverage_high_mm=62.0, unsigned_pixels=unsigned)
    write_series(options, tmp_path)
    ds = read_series(tmp_path)[0]
    assert ds.PixelRepresentation == (0 if unsigned else 1)
    assert np.array_equal(hounsfield(ds), render(options)[0].hu[0])


def test_circular_padding_is_written_and_declared(slab, tmp_path, read_series, hounsfield):
    options = replace(slab, coverage_high_mm=62.0, circular_padding_hu=-2000, unsigned_pixels=False)
    write_series(options, tmp_path)
    ds = read_series(tmp_path)[0]
    assert ds.PixelPaddingValue == -2000
    hu = hounsfield(ds)
    assert hu[0, 0] == hu[-1, -1] == -2000
    assert hu[48, 64] > -1024


def test_contrast_of_header_and_image_are_separate(slab, tmp_path, read_series):
    options = replace(slab, coverage_high_mm=62.0)
    truth = write_series(replace(options, contrast_in_header=True), tmp_path / "said")
    assert read_series(tmp_path / "said")[0].ContrastBolusAgent
    assert truth.hu["blood"] < 60.0
    truth = write_series(replace(options, contrast_in_image=True), tmp_path / "shown")
    assert "ContrastBolusAgent" not in read_series(tmp_path / "shown")[0]
    assert truth.hu["blood"] > 150.0


@pytest.mark.slow
def test_multi_frame_equals_single_frames(slab, tmp_path, read_series):
    options = replace(slab, slice_order="descending")
    write_series(options, tmp_path / "single")
    write_series(replace(options, multi_frame=True), tmp_path / "multi")
    singles = read_series(tmp_path / "single")
    (multi,) = read_series(tmp_path / "multi")
    assert multi.SOPClassUID == EnhancedCTImageStorage
    assert multi.NumberOfFrames == len(singles)
    assert np.array_equal(multi.pixel_array, np.stack([ds.pixel_array for ds in singles]))
    for frame, single in zip(multi.PerFrameFunctionalGroupsSequence, singles, strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == single.ImagePositionPatient
    shared = multi.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == singles[0].PixelSpacing


def test_truth_lies_beside_the_series(slab, tmp_path):
    truth = write_series(replace(slab, coverage_high_mm=62.0), tmp_path)
    written = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(truth.to_json()))
    assert written["options"]["coverage_high_mm"] == 62.0
