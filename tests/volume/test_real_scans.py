"""Every open scan builds, or is refused for the right reason."""

from __future__ import annotations

import pytest

from appliance.dicom.image.files import read_inputs
from appliance.dicom.image.volume import build_scan
from appliance.errors import InputRefusedError

pytestmark = pytest.mark.slow


@pytest.fixture
def found(real_scans, tmp_path):
    def read(name):
        return read_inputs([real_scans / name], tmp_path)

    return read


def code_for(series):
    with pytest.raises(InputRefusedError) as caught:
        build_scan(series.headers)
    return caught.value.reason.code


def test_plain_chest(found):
    scan = build_scan(found("dicom/lidc-0002-plain-chest.zip").series[0].headers)
    assert scan.volume.shape == (261, 512, 512)
    assert scan.volume.spacing_mm == pytest.approx((1.25, 0.681641, 0.681641))
    assert (scan.acquisition.kernel_family, scan.acquisition.contrast_tag) == ("soft", "unknown")
    # Right side up: the table lies behind the patient (towards +y), lungs above liver (towards +z).
    hu, affine = scan.volume.hu, scan.volume.affine
    assert affine[2, 0] > 0
    assert affine[1, 1] > 0
    assert affine[0, 2] > 0
    lung = [(hu[i, 100:400, 100:400] < -700).mean() for i in (20, 160)]
    assert lung[0] < lung[1]


def test_two_kernels_of_one_study(found):
    inputs = found("dicom/lung-dx-a0002-two-kernels-8mm.zip")
    scans = [build_scan(series.headers) for series in inputs.series]
    assert [scan.volume.shape for scan in scans] == [(30, 512, 512)] * 2
    assert {scan.acquisition.kernel_family for scan in scans} == {"medium", "sharp"}
    assert [scan.volume.spacing_mm[0] for scan in scans] == [8.0, 8.0]


def test_irregular_gaps(found):
    inputs = found("dicom/tcga-bc-a10x-contrast-irregular-gaps.zip")
    assert [reason.code for _, reason in inputs.rejected] == ["no_dicom"]
    assert {series.modality: code_for(series) for series in inputs.series} == {
        "OT": "not_ct",
        "CT": "irregular_spacing",
    }
    assert all(h.contrast_tag == "given" for s in inputs.series for h in s.headers if s.modality == "CT")


def test_two_pieces_of_a_tilted_head(found):
    series = found("dicom/ge-head-gantry-tilt.zip").series[0]
    assert code_for(series) == "irregular_spacing"
    for thickness in (4.0, 7.0):
        piece = [header for header in series.headers if header.frames[0].slice_thickness_mm == thickness]
        scan = build_scan(piece)
        assert scan.acquisition.gantry_tilt_degrees == pytest.approx(18.5, abs=0.05)
        assert scan.volume.spacing_mm[0] == pytest.approx(thickness, abs=0.01)


def test_twenty_slices(found):
    scan = build_scan(found("dicom/totalsegmentator-20-slices.zip").series[0].headers)
    assert scan.volume.shape == (20, 512, 512)
    assert scan.acquisition.contrast_tag == "given"


def test_perfusion_map(found):
    assert code_for(found("codecs/eCT_Supplemental.dcm").series[0]) == "not_original_axial"
