"""A segment lies on the voxels that were received: read back without highdicom, held against the truth in mm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from appliance.results.objects import segmentation
from tests.objects.conftest import SMALL, VARIANTS, case_of, inside

SHAPES = ("plain", "feet first, prone, oblique", "multi-frame", "gantry tilt")


def frames_of(ds) -> np.ndarray:
    """The frames, unpacked bit by bit from the first bit on (PS3.5 8.1.1)."""
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    count = int(ds.NumberOfFrames) * ds.Rows * ds.Columns
    return bits[:count].reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns).astype(bool)


def sources(case) -> dict[tuple[str, int | None], tuple[list[float], list[float], list[float]]]:
    """Position, orientation and pixel spacing of every received slice."""
    found = {}
    for path in case.files:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        if "PerFrameFunctionalGroupsSequence" not in ds:
            found[ds.SOPInstanceUID, None] = (ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing)
            continue
        shared = ds.SharedFunctionalGroupsSequence[0]
        for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence, start=1):
            both = pydicom.Dataset()
            both.update(shared)
            both.update(frame)
            found[ds.SOPInstanceUID, number] = (
                both.PlanePositionSequence[0].ImagePositionPatient,
                both.PlaneOrientationSequence[0].ImageOrientationPatient,
                both.PixelMeasuresSequence[0].PixelSpacing,
            )
    return found


def voxels_mm(place, rows: int, columns: int) -> np.ndarray:
    """Equation C.7.6.2.1-1: where the pixels of a slice lie."""
    position, orientation, spacing = (np.array(value, dtype=float) for value in place)
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return (
        position
        + column[..., None] * orientation[:3] * spacing[1]
        + row[..., None] * orientation[3:] * spacing[0]
    )  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def shaped(request, tmp_path_factory):
    options, change, _ = VARIANTS[request.param]
    return case_of(tmp_path_factory.mktemp("shaped"), options, change, objects=["seg"])


def names_of(ds) -> dict[int, str]:
    return {item.SegmentNumber: item.SegmentLabel.replace(" ", "_") for item in ds.SegmentSequence}


def test_every_structure_is_where_it_is_in_the_patient(shaped):
    ds = shaped.read("segmentation-1")
    places, names = sources(shaped), names_of(ds)
    assert set(names.values()) == {"liver", "kidney_left", "vertebral_bodies"}
    seen: dict[str, set] = {name: set() for name in names.values()}
    for mask, group in zip(frames_of(ds), ds.PerFrameFunctionalGroupsSequence, strict=True):
        name = names[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = (source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(position, float), np.array(places[key][0], float), atol=1e-4)
        assert mask.any()
        away = inside(name, shaped.scan, voxels_mm(places[key], ds.Rows, ds.Columns))
        assert away[mask].max() < 1.35  # the map has voxels of 4 mm
        assert mask[away < 0.7].all()
        seen[name].add(key)
    for name, keys in seen.items():
        for key, place in places.items():
            if (inside(name, shaped.scan, voxels_mm(place, ds.Rows, ds.Columns)) < 0.7).any():
                assert key in keys


def test_it_has_the_size_of_the_received_images(shaped):
    ds = shaped.read("segmentation-1")
    image = pydicom.dcmread(shaped.files[0], stop_before_pixels=True)
    assert (ds.Rows, ds.Columns) == (image.Rows, image.Columns)
    assert ds.SegmentationType == "BINARY"
    assert ds.FrameOfReferenceUID == shaped.scan.frame_of_reference_uid
    assert ds.NumberOfFrames <= segmentation.MOST_FRAMES


def test_references_name_the_received_class(shaped):
    ds = shaped.read("segmentation-1")
    image = pydicom.dcmread(shaped.files[0], stop_before_pixels=True)
    assert {item.ReferencedSOPClassUID for item in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence} == {
        image.SOPClassUID
    }
    received = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in shaped.files}
    assert {
        item.ReferencedSOPInstanceUID for item in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } <= received


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 6), (3, 7)])
def test_bits_follow_one_another_without_a_gap(rows, columns):
    chance = np.random.default_rng(7)
    voxels = chance.random((3, 2, 2)) < 0.5
    masks = [segmentation.Mask("a", 2, 1, 2, voxels), segmentation.Mask("b", 0, 0, 0, ~voxels)]
    frames = [(place, index) for place in (0, 1) for index in range(6)]
    full = np.zeros((2, 6, rows, columns), dtype=bool)
    full[0, 2:5, 1:3, 2:4] = voxels
    full[1, 0:3, 0:2, 0:2] = ~voxels
    packed = segmentation._pack(masks, frames, (rows, columns))
    assert len(packed) % 2 == 0
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[: full.size]
    assert np.array_equal(bits.reshape(full.shape).astype(bool), full)


def test_a_large_one_is_split_by_organ(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation, "MOST_FRAMES", 20)
    case = case_of(tmp_path, SMALL, objects=["seg"])
    assert len(case.objects) == 3
    assert [len(ds.SegmentSequence) for ds in case.named("segmentation")] == [1, 1, 1]


def test_side_and_colour_are_coded(plain):
    segments = {item.SegmentLabel: item for item in plain.read("segmentation-1").SegmentSequence}
    kidney = segments["kidney left"].SegmentedPropertyTypeCodeSequence[0]
    assert kidney.CodeValue == "64033007"
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "RecommendedDisplayCIELabValue" in segments["liver"]


def test_no_finding_no_segmentation(plain):
    healthy = replace(plain.report, screenings=plain.report.screenings[3:])
    assert segmentation.wanted_structures(healthy, plain.organs) == ()
