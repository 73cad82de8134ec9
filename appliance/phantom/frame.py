"""The patient's frame: outlines of skin, muscle and cavity along the body, and the course of the spine.

All tables are for an adult of 1.70 m; z runs towards the head with 0 a little below the diaphragm's dome, y towards
the back, x towards the patient's left. ``Frame`` stretches them to the patient who was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.options import VERTEBRAE
from appliance.phantom.shapes import superellipse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.grid import Floats, Vector
    from appliance.phantom.options import PhantomOptions

# z, front, back, half width of the space inside ribs and abdominal wall
_CAVITY = np.array(
    [
        (-420, -60, 40, 100), (-330, -72, 42, 112), (-260, -80, 44, 121), (-187, -86, 46, 121),
        (-114, -92, 56, 123), (-60, -96, 74, 130), (0, -98, 85, 136), (50, -95, 89, 136), (100, -88, 88, 130),
        (150, -75, 80, 116), (190, -57, 67, 94), (215, -43, 50, 73), (240, -30, 36, 52), (262, -20, 24, 36),
        (420, -20, 24, 36),
    ],
    dtype=np.float64,
)  # fmt: skip
# z, front, back, half width of the muscles' outer surface
_MUSCLE = np.array(
    [
        (-420, -80, 110, 165), (-330, -84, 108, 166), (-260, -90, 98, 160), (-187, -97, 92, 147),
        (-114, -104, 95, 143), (-60, -109, 107, 149), (0, -113, 115, 155), (50, -113, 119, 159),
        (100, -110, 121, 163), (150, -100, 119, 170), (190, -80, 110, 180), (215, -66, 97, 172),
        (235, -58, 84, 128), (250, -54, 72, 86), (265, -52, 60, 66), (285, -52, 52, 58), (420, -54, 50, 56),
    ],
    dtype=np.float64,
)  # fmt: skip
# z, y of the middle of the vertebral bodies
_SPINE = np.array(
    [
        (-420, 60), (-330, 66), (-265, 52), (-224, 38), (-187, 29), (-150, 26), (-114, 28), (-78, 33), (-44, 38),
        (0, 44), (50, 50), (100, 51), (150, 46), (200, 33), (237, 18), (256, 9), (291, 1), (420, -4),
    ],
    dtype=np.float64,
)  # fmt: skip
# Lower and upper face of each vertebral body for 1.70 m, from L5 up to T1, then three cervical bodies.
_BODY_HEIGHT = (27.5, 28, 28, 27.5, 27, 26, 24.5, 23.5, 22.5, 21.5, 21, 20.5, 20, 19.5, 18.5, 18, 16.5)
_DISC_HEIGHT = (10.5, 10.5, 10, 9, 8, 6.5, 5.5, 5, 4.8, 4.6, 4.4, 4.2, 4.0, 3.8, 3.8, 3.8, 4.0)
_L5_LOWER_FACE_MM = -240.0


@dataclass(frozen=True, slots=True)
class VertebralBody:
    """Place and size of a vertebral body: ``z`` of its middle, height, half width, half depth, lean."""

    name: str
    z_mm: float
    y_mm: float
    height_mm: float
    half_width_mm: float
    half_depth_mm: float
    lean: float


class Frame:
    """Tables stretched to the patient's size.

    Parameters
    ----------
    options
        Whose height, width, depth, fat and muscles.
    """

    def __init__(self, options: PhantomOptions) -> None:
        self.options = options
        self.sz = options.height_scale
        self.sy = options.depth_scale
        self.sx = options.width_scale

    def point(self, z: float, y: float, x: float) -> Vector:
        """Stretch a reference point to the patient."""
        return z * self.sz, y * self.sy, x * self.sx

    def spine_y(self, z_mm: float | Floats) -> Floats:
        """Return y of the middle of the vertebral bodies at heights z, mm."""
        return np.asarray(np.interp(np.asarray(z_mm) / self.sz, _SPINE[:, 0], _SPINE[:, 1]) * self.sy, dtype=np.float32)

    def _outline(self, table: NDArray[np.float64], z: Floats) -> tuple[Floats, Floats, Floats]:
        reference = np.asarray(z, dtype=np.float64) / self.sz
        # A little smoothing along z keeps the skin free of the table's corners.
        offsets, weights = (-12.0, -6.0, 0.0, 6.0, 12.0), (0.1, 0.23, 0.34, 0.23, 0.1)
        columns = []
        for column, scale in ((1, self.sy), (2, self.sy), (3, self.sx)):
            values = sum(
                w * np.interp(reference + o, table[:, 0], table[:, column])
                for o, w in zip(offsets, weights, strict=True)
            )
            columns.append(np.asarray(values * scale, dtype=np.float32))
        return columns[0], columns[1], columns[2]

    def cavity_outline(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Front, back and half width of the inner outline at z."""
        return self._outline(_CAVITY, z)

    def cavity(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to the inner surface of ribs and abdominal wall."""
        front, back, half_width = self.cavity_outline(z)
        return superellipse(y, x, front, back, half_width, 2.25)

    def muscle(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to the outer surface of the muscles."""
        front, back, half_width = self._outline(_MUSCLE, z)
        return superellipse(y, x, front, back, half_width, 2.35)

    def skin_outline(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Front, back and half width of the skin at z."""
        fat = self.options.subcutaneous_fat_mm
        reference = np.asarray(z, dtype=np.float64) / self.sz
        # The belly and the hips carry more than the chest, and the neck little.
        part = np.interp(
            reference, (-330, -220, -120, 0, 80, 190, 240, 270), (1.3, 1.25, 1.0, 0.75, 0.7, 0.6, 0.4, 0.3)
        )
        fat_z = np.asarray(fat * part, dtype=np.float32)
        front, back, half_width = self._outline(_MUSCLE, z)
        belly = np.asarray(np.interp(reference, (-260, -150, -40, 60), (1.2, 1.5, 1.0, 0.9)), dtype=np.float32)
        two = np.float32(2.0)
        return front - fat_z * belly - two, back + fat_z * np.float32(1.05) + two, half_width + fat_z + two

    def skin(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to the skin."""
        front, back, half_width = self.skin_outline(z)
        return superellipse(y, x, front, back, half_width, 2.3)

    def vertebrae(self) -> list[VertebralBody]:
        """Return the vertebral bodies from L5 upward to T1."""
        bodies = []
        z = _L5_LOWER_FACE_MM * self.sz
        for k, name in enumerate(reversed(VERTEBRAE)):
            height = _BODY_HEIGHT[k] * self.sz
            middle = z + 0.5 * height
            y = float(self.spine_y(middle))
            lean = float(self.spine_y(middle + 8.0) - self.spine_y(middle - 8.0)) / 16.0
            part = k / (len(VERTEBRAE) - 1)
            width = float(np.interp(part, (0, 0.25, 0.45, 0.8, 1), (25.5, 23, 17.5, 14.5, 15))) * self.sx
            depth = float(np.interp(part, (0, 0.25, 0.45, 0.8, 1), (17, 16.5, 15.5, 13, 10))) * self.sy
            bodies.append(VertebralBody(name, middle, y, height, width, depth, lean))
            z += height + _DISC_HEIGHT[k] * self.sz
        return bodies
