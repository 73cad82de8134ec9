"""One description of a frame for single-frame and multi-frame objects alike.

In a single-frame CT image the values stand in the main data set; in Enhanced and Legacy Converted Enhanced CT they
stand in the shared and per-frame functional groups (PS3.3 C.7.6.16), the frame's own group winning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.dicom.image.elements import Elements

_SHARED_GROUPS = 0x52009229
_PER_FRAME_GROUPS = 0x52009230

_FRAME_CONTENT = 0x00209111
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_MEASURES = 0x00289110
_PIXEL_VALUE_TRANSFORMATION = 0x00289145
_FRAME_TYPE = 0x00189329
_RECONSTRUCTION = 0x00189314
_UNASSIGNED_CONVERTED = 0x0020917A  # Legacy Converted: attributes that differ between the old instances
_UNASSIGNED_SHARED_CONVERTED = 0x0020917B

_IMAGE_TYPE = 0x00080008
_SLICE_THICKNESS = 0x00180050
_KERNEL = 0x00181210
_ACQUISITION_NUMBER = 0x00200012
_POSITION = 0x00200032
_ORIENTATION = 0x00200037
_TEMPORAL_POSITION = 0x00200100
_PIXEL_SPACING = 0x00280030
_INTERCEPT = 0x00281052
_SLOPE = 0x00281053
_RESCALE_TYPE = 0x00281054


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One frame's place in the patient and the meaning of its values; ``None`` where the file is silent or wrong.

    Attributes
    ----------
    frame_number
        One-based, ``None`` in a single-frame instance.
    position_mm
        Image Position (Patient), LPS: centre of the first voxel.
    orientation
        Image Orientation (Patient): direction in which the column index grows, then the row index.
    pixel_spacing_mm
        Between rows, between columns.
    slice_thickness_mm
        Nominal.
    rescale_slope, rescale_intercept, rescale_type
        Modality transformation; the type is upper case, empty when absent.
    image_type
        Image Type or Frame Type, upper case.
    acquisition_number, temporal_position, stack_id
        What else tells frames at the same place apart.
    kernel
        Convolution kernel, first value.
    """

    frame_number: int | None
    position_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str
    image_type: tuple[str, ...]
    acquisition_number: int | None
    temporal_position: int | None
    stack_id: str
    kernel: str


def read_frames(elements: Elements) -> tuple[FrameHeader, ...]:
    """Describe every frame of an instance.

    Parameters
    ----------
    elements
        Main data set.

    Returns
    -------
    tuple of FrameHeader
        In the order of the pixel data.
    """
    per_frame = elements.items(_PER_FRAME_GROUPS)
    shared = elements.item(_SHARED_GROUPS)
    count = max(1, int(elements.number(0x00280008) or 1))
    if not per_frame and shared is None:
        if count == 1:
            return (_single(elements),)
        # Several frames without functional groups have no positions of their own; the volume builder refuses them.
        single = _single(elements)
        return tuple(_without_position(single, number) for number in range(1, min(count, 65536) + 1))
    return tuple(
        _grouped(number, [group for group in (frame, shared) if group is not None], elements)
        for number, frame in enumerate(per_frame or (None,) * min(count, 65536), start=1)
    )


def _single(elements: Elements) -> FrameHeader:
    spacing = elements.numbers(_PIXEL_SPACING)
    return FrameHeader(
        frame_number=None,
        position_mm=_triple(elements.numbers(_POSITION)),
        orientation=_six(elements.numbers(_ORIENTATION)),
        pixel_spacing_mm=_spacing(spacing),
        slice_thickness_mm=elements.number(_SLICE_THICKNESS) or None,
        rescale_slope=elements.number(_SLOPE),
        rescale_intercept=elements.number(_INTERCEPT),
        rescale_type=elements.text(_RESCALE_TYPE).upper(),
        image_type=tuple(value.upper() for value in elements.texts(_IMAGE_TYPE)),
        acquisition_number=elements.integer(_ACQUISITION_NUMBER),
        temporal_position=elements.integer(_TEMPORAL_POSITION),
        stack_id="",
        kernel=elements.text(_KERNEL)[:64],
    )


def _without_position(frame: FrameHeader, number: int) -> FrameHeader:
    from dataclasses import replace

    return replace(frame, frame_number=number, position_mm=None)


def _grouped(number: int, groups: list[Elements], elements: Elements) -> FrameHeader:
    def macro(sequence: int, tag: int) -> Elements | None:
        """Return the item of a functional group macro that holds ``tag``, the frame's own before the shared."""
        for group in groups:
            item = group.item(sequence)
            if item is not None and tag in item:
                return item
        return None

    def numbers(sequence: int, tag: int) -> tuple[float, ...]:
        item = macro(sequence, tag)
        return item.numbers(tag) if item is not None else ()

    def number_of(sequence: int, tag: int) -> float | None:
        values = numbers(sequence, tag)
        return values[0] if values else None

    def texts(sequence: int, tag: int) -> tuple[str, ...]:
        item = macro(sequence, tag)
        return item.texts(tag) if item is not None else ()

    content = macro(_FRAME_CONTENT, 0x00209156)
    acquisition = content.unsigned(0x00209156) if content is not None else None
    timed = macro(_FRAME_CONTENT, 0x00209128)
    temporal = timed.binary(0x00209128, "UL") if timed is not None else None
    kernel = (
        texts(_RECONSTRUCTION, _KERNEL)
        or texts(_UNASSIGNED_CONVERTED, _KERNEL)
        or texts(_UNASSIGNED_SHARED_CONVERTED, _KERNEL)
    )
    frame_type = texts(_FRAME_TYPE, 0x00089007) or elements.texts(_IMAGE_TYPE)
    rescale_type = texts(_PIXEL_VALUE_TRANSFORMATION, _RESCALE_TYPE)
    return FrameHeader(
        frame_number=number,
        position_mm=_triple(numbers(_PLANE_POSITION, _POSITION)),
        orientation=_six(numbers(_PLANE_ORIENTATION, _ORIENTATION)),
        pixel_spacing_mm=_spacing(numbers(_PIXEL_MEASURES, _PIXEL_SPACING)),
        slice_thickness_mm=number_of(_PIXEL_MEASURES, _SLICE_THICKNESS) or None,
        rescale_slope=number_of(_PIXEL_VALUE_TRANSFORMATION, _SLOPE),
        rescale_intercept=number_of(_PIXEL_VALUE_TRANSFORMATION, _INTERCEPT),
        rescale_type=rescale_type[0].upper() if rescale_type else "",
        image_type=tuple(value.upper() for value in frame_type),
        acquisition_number=acquisition,
        temporal_position=None if temporal is None else int(temporal),
        stack_id=(texts(_FRAME_CONTENT, 0x00209056) or ("",))[0],
        kernel=(kernel or ("",))[0][:64],
    )


def _triple(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None


def _six(values: tuple[float, ...]) -> tuple[float, ...] | None:
    return values if len(values) == 6 else None


def _spacing(values: tuple[float, ...]) -> tuple[float, float] | None:
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None
