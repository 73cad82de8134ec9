"""Stomach and bowel: folded tubes with a wall, contents, and gas that rises to the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom import courses
from appliance.phantom.lungs import dome
from appliance.phantom.shapes import spline, tube, widened
from appliance.phantom.texture import generator, smooth_field
from appliance.phantom.tissues import Tissue

if TYPE_CHECKING:
    from appliance.phantom.canvas import Box, Canvas
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats


def below_diaphragm(frame: Frame, z: Floats, y: Floats, x: Floats, gap_mm: float) -> Floats:
    """Distance to the space below the diaphragm and inside the wall, ``gap_mm`` away from both."""
    floor = (z - dome(frame, y, x) + gap_mm) * 0.72
    return np.asarray(np.maximum(floor, frame.cavity(z, y, x) + gap_mm), dtype=np.float32)


class GutPainter:
    """Paints the gut.

    Parameters
    ----------
    canvas, frame
        Where to paint, and whose gut.
    """

    def __init__(self, canvas: Canvas, frame: Frame) -> None:
        self.canvas = canvas
        self.frame = frame
        self.options = frame.options
        self.contrast = 1.0 if frame.options.contrast_in_image else 0.0

    def paint_stomach(self) -> None:
        """Paint the stomach with its meal and the gas above it."""
        course = np.array([(*self.frame.point(*p[:3]), p[3]) for p in courses.STOMACH])
        found = self.canvas.tube_distance(tube(spline(course, 4.0)), 4.0)
        if found is None:
            return
        box, distance = found
        local = self.canvas.grid.crop(box)
        distance = distance + 2.0 * smooth_field(self.options.seed, "rugae", 12.0, local)
        limit = self.canvas.distance(lambda z, y, x: below_diaphragm(self.frame, z, y, x, 4.5), box)
        distance = np.maximum(distance, limit).astype(np.float32)
        self.canvas.blend(distance, box, 42.0 + 20.0 * self.contrast, Tissue.STOMACH)
        content = 22.0 + 6.0 * smooth_field(self.options.seed, "meal", 8.0, local)
        self.canvas.blend(distance + 3.5, box, content, None)
        _, y, _ = local.axes()
        gravity = y if self.options.patient_position in {"HFS", "FFS"} else -y
        level = -44.0 * self.frame.sy if self.options.patient_position in {"HFS", "FFS"} else -6.0 * self.frame.sy
        gas = np.maximum(distance + 3.5, gravity - level).astype(np.float32)
        self.canvas.blend(gas, box, -990.0, Tissue.BOWEL_GAS)

    def paint_bowel(self) -> None:
        """Paint small bowel, duodenum and colon."""
        if "bowel" in self.options.missing_organs:
            return
        self._paint_loops()
        seed = self.options.seed
        for name, points, wall, haustra in (
            ("duodenum", courses.DUODENUM, 2.5, 0.06),
            ("colon", courses.COLON, 2.2, 0.2),
        ):
            course = spline(np.array([(*self.frame.point(*p[:3]), p[3]) for p in points]), 4.0)
            along = np.cumsum(np.r_[0.0, np.linalg.norm(np.diff(course[:, :3], axis=0), axis=1)])
            course[:, 3] *= 1.0 + haustra * np.sin(along / 7.5) * (0.6 + 0.4 * np.sin(along / 47.0))
            found = self.canvas.tube_distance(tube(course), 4.0)
            if found is None:
                continue
            box, distance = found
            local = self.canvas.grid.crop(box)
            distance += 1.5 * smooth_field(seed, name, 13.0, local)
            limit = self.canvas.distance(lambda z, y, x: below_diaphragm(self.frame, z, y, x, 5.0), box)
            distance = np.maximum(distance, limit).astype(np.float32)
            self.canvas.blend(distance, box, 40.0 + 30.0 * self.contrast, Tissue.BOWEL)
            meal = smooth_field(seed, f"{name} content", 5.0, local)
            self.canvas.blend(distance + wall, box, 25.0 + (30.0 if name == "colon" else 8.0) * meal, None)
            if name == "colon":
                froth = np.maximum(distance + wall, 1.6 - meal) * 1.5
                self.canvas.blend(froth.astype(np.float32), box, -500.0, None)
                self._fill_with_gas(box, distance + wall, 0.55)

    def _fill_with_gas(self, box: Box, inner: Floats, share: float) -> None:
        """Gas rises to the front of each stretch of bowel; where it stands follows a slow random field."""
        local = self.canvas.grid.crop(box)
        _, y, _ = local.axes()
        place = smooth_field(self.options.seed, "gas", 55.0, local)
        up = 1.0 if self.options.patient_position in {"HFS", "FFS"} else -1.0
        level = up * y + 62.0 * self.frame.sy * (0.7 - share) - 30.0 * place
        gas = np.maximum(inner + 0.6, level + 6.0).astype(np.float32)
        self.canvas.blend(gas, box, -985.0, Tissue.BOWEL_GAS)

    def _paint_loops(self) -> None:
        """Small bowel: one long tube folded at random in the middle of the belly."""
        random = generator(self.options.seed, "small bowel")
        count = 150
        points = []
        here = np.array([-150.0, -40.0, 20.0])
        low, high = np.array([-310.0, -78.0, -80.0]), np.array([-126.0, 2.0, 84.0])
        way = np.array([0.0, 0.0, 1.0])
        for _ in range(count):
            way = 0.55 * way + random.normal(0.0, 1.0, 3) * np.array([0.8, 0.7, 1.0])
            way /= np.linalg.norm(way)
            there = here + 22.0 * way
            out = (there < low) | (there > high)
            way[out] *= -1.0
            here = np.clip(here + 22.0 * way, low, high)
            points.append((*self.frame.point(*here), 9.5 + 2.5 * random.random()))
        course = spline(points, 5.0)
        found = self.canvas.tube_distance(tube(course), 4.0)
        if found is None:
            return
        box, distance = found
        limit = self.canvas.distance(lambda z, y, x: below_diaphragm(self.frame, z, y, x, 9.0), box)
        distance = np.maximum(distance, limit).astype(np.float32)
        self.canvas.blend(distance, box, 38.0 + 30.0 * self.contrast, Tissue.BOWEL)
        content = self.canvas.tube_distance(widened(tube(course), -3.0), 4.0)
        if content is not None:
            local = self.canvas.grid.crop(content[0])
            self.canvas.blend(
                content[1], content[0], 22.0 + 6.0 * smooth_field(self.options.seed, "chyme", 9.0, local), None
            )
        self._fill_with_gas(box, distance + 3.0, 0.25)
