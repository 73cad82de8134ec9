"""Scans on the command line: NIfTI and DICOM, and which of them may judge."""

import nibabel
import numpy as np
import pytest

from appliance.errors import ConfigurationError, InputRefusedError, PackError
from appliance.inference.resample import to_canonical
from appliance.packs.quantising.scans import Source, find_scans, read_nifti, refuse_overlap, split
from appliance.phantom import PhantomOptions, write_series
from tests.quantising.conftest import SPACING_MM, scan, write_scan


def test_a_nifti_volume_keeps_its_place_in_the_patient(tmp_path):
    hu = scan(1)
    volume = read_nifti(write_scan(tmp_path / "a.nii.gz", hu))
    canonical, grid = to_canonical(volume, (SPACING_MM,) * 3)
    assert np.array_equal(canonical, hu)
    assert np.allclose(grid.affine[:3, 3], 0)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR"])
def test_the_order_of_the_voxels_does_not_matter(tmp_path, axes):
    hu = scan(1)
    image = nibabel.load(write_scan(tmp_path / "a.nii.gz", hu))
    have = nibabel.orientations.io_orientation(image.affine)
    want = nibabel.orientations.axcodes2ornt(tuple(axes))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(have, want))
    nibabel.save(turned, tmp_path / "b.nii")
    assert np.array_equal(to_canonical(read_nifti(tmp_path / "b.nii"), (SPACING_MM,) * 3)[0], hu)


@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (np.zeros((8, 8, 8), np.int16), "not Hounsfield units"),
        (np.zeros((8, 8, 8, 2), np.int16), "three axes"),
        (np.full((8, 8, 8), np.nan, np.float32), "finite"),
    ],
)
def test_what_is_no_ct_volume_is_refused(tmp_path, voxels, sentence):
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(PackError, match=sentence):
        read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_damaged_file_is_a_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the sort" * 40)
    with pytest.raises(PackError, match="not a readable NIfTI volume"):
        read_nifti(tmp_path / name)


def test_a_cut_file_is_a_sentence(tmp_path):
    path = write_scan(tmp_path / "a.nii.gz", scan(1))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PackError, match="not a readable NIfTI volume"):
        read_nifti(path)


def test_a_compressed_file_that_was_altered_is_a_sentence(tmp_path):
    path = tmp_path / "a.nii.gz"
    # after the header of gzip (RFC 1952) a block of the type that is reserved (RFC 1951, 3.2.3)
    path.write_bytes(bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]) + b"\x07" * 400)
    with pytest.raises(PackError, match="not a readable NIfTI volume"):
        read_nifti(path)


def test_files_and_folders_are_found_once_and_in_order(scans, tmp_path):
    found = find_scans([scans / "scan_2.nii.gz", scans], tmp_path)
    assert [source.name for source in found] == [f"scan_{number}.nii.gz" for number in range(4)]


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no-such"):
        find_scans([tmp_path / "no-such"], tmp_path)


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputRefusedError):
        find_scans([tmp_path], tmp_path)


def test_dicom_series_are_read_as_the_appliance_reads_them(tmp_path):
    folder = tmp_path / "dicom"
    write_series(PhantomOptions(slice_thickness_mm=10.0, slice_spacing_mm=10.0, rows=64, columns=64), folder)
    (source,) = find_scans([folder], tmp_path)
    assert source.name.startswith("series ")
    assert source.read().hu.shape[1:] == (64, 64)


def sources(*groups):
    return [Source(f"{group}-{number}", group, lambda: None) for number, group in enumerate(groups)]


def test_every_second_study_judges():
    calibrating, judging = split(sources("a", "b", "c", "d", "e"))
    assert [item.group for item in calibrating] == ["a", "c", "e"]
    assert [item.group for item in judging] == ["b", "d"]


def test_two_series_of_one_study_stay_together():
    calibrating, judging = split(sources("a", "a", "b", "b"))
    assert {item.group for item in calibrating}.isdisjoint(item.group for item in judging)


@pytest.mark.parametrize("groups", [(), ("a",), ("a", "a")])
def test_fewer_than_two_studies_are_refused(groups):
    with pytest.raises(PackError, match="Two scans at least"):
        split(sources(*groups))


def test_a_scan_may_not_calibrate_and_judge():
    with pytest.raises(PackError, match="to calibrate and to judge"):
        refuse_overlap(sources("a", "b"), sources("b"))
