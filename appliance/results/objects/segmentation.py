"""DICOM Segmentation of the structures behind the findings, on the voxels that were received (PS3.3 A.51).

Binary, never fractional; only frames that hold something. The masks are computed on the received images' own grid:
where a tilted gantry made the volume lean, its shear is undone before, so no mask is ever moved between grids.

highdicom describes the frames; it is given one pixel for each, and the bits are packed here plane by plane, so that a
scan of a thousand slices costs the memory of its packed bits and not many times that of its voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.native import native_mask
from appliance.anatomy.structures import STRUCTURES
from appliance.results.objects.codes import laterality, site
from appliance.results.objects.general import dress
from appliance.results.objects.uids import derived_uid, tracking_uid
from appliance.scan import Volume
from appliance.screenings.contract import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from highdicom.seg import SegmentDescription
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from appliance.anatomy.organ_map import OrganMap
    from appliance.results.objects.general import Making
    from appliance.results.objects.source import Source, SourceSlice
    from appliance.results.report import Report

MOST_FRAMES = 400
"""Viewers refuse or freeze above this; beyond it every structure gets an object of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A structure on the received voxels.

    Attributes
    ----------
    structure
        Its name.
    first_slice
        Index of the first slice of ``voxels``.
    first_row, first_column
        The same of its rows and columns.
    voxels
        Boolean ``(slices, rows, columns)``; the first and the last slice hold something.
    """

    structure: str
    first_slice: int
    first_row: int
    first_column: int
    voxels: NDArray[np.bool_]

    @property
    def slices(self) -> frozenset[int]:
        """Indices of the slices that hold something."""
        return frozenset(int(index) + self.first_slice for index in np.flatnonzero(self.voxels.any(axis=(1, 2))))

    def fill(self, plane: NDArray[np.bool_], index: int) -> None:
        """Put one slice of it into a plane of the received size that is empty."""
        if 0 <= index - self.first_slice < len(self.voxels):
            rows, columns = self.voxels.shape[1:]
            place = np.s_[self.first_row : self.first_row + rows, self.first_column : self.first_column + columns]
            plane[place] = self.voxels[index - self.first_slice]


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """Where a structure's segment is: for the report.

    Attributes
    ----------
    sop_instance_uid, segment_number
        The object and the segment in it.
    """

    sop_instance_uid: str
    segment_number: int


def wanted_structures(report: Report, organs: OrganMap) -> tuple[str, ...]:
    """Return the structures that findings and their numbers are about, as far as the organ map holds them.

    A single vertebra is not an output of every network; the row of vertebral bodies then stands for it.
    """
    names: dict[str, None] = {}
    for result in report.screenings:
        if result.outcome.status is not Status.FINDING:
            continue
        sites = (*(finding.site for finding in result.outcome.findings),)
        sites = (*sites, *(item.site for item in result.outcome.measurements if item.site is not None))
        for name in sites:
            held = name if name in organs.structures or not name.startswith("vertebra_") else "vertebral_bodies"
            if held in organs.structures and held in STRUCTURES and organs.mask(held).any():
                names[held] = None
    return tuple(names)


def received_mask(name: str, organs: OrganMap, source: Source) -> Mask | None:
    """Return a structure on the received voxels, ``None`` when no voxel's centre lies in it."""
    # only its grid is used; the array is one number seen everywhere and takes no memory
    grid = Volume(np.broadcast_to(np.int16(0), source.shape), np.array(source.affine))
    box, inside = native_mask(organs, grid, name)
    slices = np.flatnonzero(inside.any(axis=(1, 2)))
    if slices.size == 0:
        return None
    kept = inside[slices[0] : slices[-1] + 1]
    return Mask(name, box[0].start + int(slices[0]), box[1].start, box[2].start, kept)


def segmentations(
    making: Making, organs: OrganMap, names: Sequence[str]
) -> Iterator[tuple[Dataset, dict[str, SegmentReference]]]:
    """Make the segmentation objects, one at a time.

    Parameters
    ----------
    making
        The scan and its report.
    organs
        Its organ map.
    names
        Structures; those that no voxel's centre lies in are left out.

    Yields
    ------
    object, references
        A Segmentation and where each of its structures is.
    """
    for number, group in enumerate(_grouped(making.source, organs, names), start=1):
        ds = _segmentation(making, group, number)
        uid = str(ds.SOPInstanceUID)
        yield ds, {mask.structure: SegmentReference(uid, place + 1) for place, mask in enumerate(group)}


def _grouped(source: Source, organs: OrganMap, names: Sequence[str]) -> Iterator[list[Mask]]:
    """All in one object while it is small; else one structure at a time, so that only one is ever held."""
    together: list[Mask] = []
    for name in names:
        mask = received_mask(name, organs, source)
        if mask is None:
            continue
        slices = frozenset().union(*(item.slices for item in together), mask.slices)
        if together and len(slices) * (len(together) + 1) > MOST_FRAMES:
            yield together
            together = []
        together.append(mask)
    if together:
        yield together


def _segmentation(making: Making, masks: Sequence[Mask], number: int) -> Dataset:
    import highdicom as hd

    held = [mask.slices for mask in masks]
    indices = sorted(frozenset().union(*held))
    there = np.array([[index in slices for slices in held] for index in indices], dtype=np.uint8)
    images = [_as_image(making.source, index) for index in indices]
    label = "+".join(mask.structure for mask in masks)
    ds = hd.seg.Segmentation(
        source_images=images,
        pixel_array=there[:, None, None, :],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(making, mask.structure, place + 1) for place, mask in enumerate(masks)],
        series_instance_uid=making.series_uid("seg"),
        series_number=making.series_number("seg"),
        sop_instance_uid=making.object_uid("seg", label),
        instance_number=number,
        manufacturer="",
        manufacturer_model_name="",
        software_versions="",
        device_serial_number="",
        content_label="AI_SEGMENTS",
        content_description="AI result, not reviewed",
        content_creator_name="Appliance^",
        omit_empty_frames=True,
    )
    dress(ds, making, "seg")
    index_of = dict(zip((image.SOPInstanceUID for image in images), indices, strict=True))
    ds.Rows, ds.Columns = making.source.rows, making.source.columns
    ds.PixelData = _pack(masks, _frames(ds, index_of), (making.source.rows, making.source.columns))
    _name_frames(ds, index_of, making.source)
    organisation = derived_uid("dimensions", ds.SOPInstanceUID)
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return ds


def _frames(ds: Dataset, index_of: dict[str, int]) -> list[tuple[int, int]]:
    """Return what each frame shows, in their order: the place of its mask and the index of its slice."""
    shared = ds.SharedFunctionalGroupsSequence[0]  # a single segment is named there
    return [
        (
            int(
                (group if "SegmentIdentificationSequence" in group else shared)
                .SegmentIdentificationSequence[0]
                .ReferencedSegmentNumber
            )
            - 1,
            index_of[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID],
        )
        for group in ds.PerFrameFunctionalGroupsSequence
    ]


def _pack(masks: Sequence[Mask], frames: Sequence[tuple[int, int]], size: tuple[int, int]) -> bytes:
    """Return Pixel Data of one bit a voxel, the first in the lowest bit, frame after frame without a gap (PS3.5 8.1.1).

    Parameters
    ----------
    masks
        One for each segment.
    frames
        From :func:`_frames`.
    size
        Rows and columns.
    """
    together = 1 if size[0] * size[1] % 8 == 0 else 8  # so many frames are whole bytes
    packed = bytearray()
    for start in range(0, len(frames), together):
        some = frames[start : start + together]
        planes = np.zeros((len(some), *size), dtype=bool)
        for plane, (place, index) in zip(planes, some, strict=True):
            masks[place].fill(plane, index)
        packed += np.packbits(planes.ravel(), bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)


def _as_image(source: Source, index: int) -> Dataset:
    """Return what highdicom needs to know of one slice, whether it is an instance or a frame of one; of one pixel."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import format_number_as_ds as decimal

    from appliance.dicom import uids

    own = source.slices[index]
    ds = Dataset()
    for keyword in (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
        "StudyTime",
    ):
        setattr(ds, keyword, "")  # the received modules take their place afterwards
    ds.StudyInstanceUID = source.study_instance_uid
    ds.SeriesInstanceUID = source.series_instance_uid
    ds.FrameOfReferenceUID = source.frame_of_reference_uid
    ds.SOPClassUID = uids.CT_IMAGE_STORAGE
    ds.SOPInstanceUID = _image_uid(own)
    ds.Modality = "CT"
    ds.Rows = ds.Columns = 1
    lengths = np.linalg.norm(source.affine[:3, 1:3], axis=0)
    down, right = source.affine[:3, 1] / lengths[0], source.affine[:3, 2] / lengths[1]
    ds.ImageOrientationPatient = [decimal(float(value)) for value in (*right, *down)]
    ds.ImagePositionPatient = [decimal(float(value)) for value in own.position_mm]
    ds.PixelSpacing = [decimal(float(lengths[0])), decimal(float(lengths[1]))]
    ds.SliceThickness = decimal(float(source.slice_thickness_mm))
    return ds


def _image_uid(own: SourceSlice) -> str:
    """Name a frame as if it were an image of its own."""
    if own.frame_number is None:
        return own.sop_instance_uid
    return derived_uid("frame", own.sop_instance_uid, str(own.frame_number))


def _name_frames(ds: Dataset, indices: dict[str, int], source: Source) -> None:
    """Put the received class, instance and frame number wherever highdicom wrote a slice's name."""
    # highdicom lets frames of several segments share one item; each is renamed once
    shared = {
        id(item): item
        for group in ds.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence", ())
        for item in derivation.SourceImageSequence
    }
    for item in shared.values():
        own = source.slices[indices[item.ReferencedSOPInstanceUID]]
        item.ReferencedSOPClassUID = own.sop_class_uid
        item.ReferencedSOPInstanceUID = own.sop_instance_uid
        if own.frame_number is not None:
            item.ReferencedFrameNumber = own.frame_number
    used = [source.slices[index] for index in sorted(indices.values())]
    for series in ds.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = instance_items(
            dict.fromkeys((item.sop_class_uid, item.sop_instance_uid) for item in used)
        )


def instance_items(instances: dict[tuple[str, str], None] | Sequence[tuple[str, str]]) -> list[Dataset]:
    """Return items that refer to instances given as SOP class and SOP instance."""
    from pydicom.dataset import Dataset

    items = []
    for sop_class, sop_instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        items.append(item)
    return items


def _description(making: Making, name: str, number: int) -> SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    kind = site(name)
    if kind is None:
        raise KeyError(name)
    report = making.report
    algorithm = hd.AlgorithmIdentificationSequence(
        name="appliance organ map",
        family=codes.cid7162.ArtificialIntelligence,
        version=report.appliance_version,
        source="Appliance",
        parameters={pack.name: f"{pack.version} {pack.digest} {pack.precision}" for pack in report.packs} or None,
    )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name.replace("_", " "),
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind.coded(),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(making.source.series_instance_uid, "structure", name),
        tracking_id=f"structure {name}",
        display_color=hd.color.CIELabColor.from_rgb(*STRUCTURES[name].rgb),
    )
    side = laterality(name)
    if side is not None:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side.coded()]
    return description
