"""Bones: vertebrae with discs and canal, ribs with cartilage, breastbone, shoulder girdle and pelvis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.canvas import Segment
from appliance.phantom.options import VERTEBRAE
from appliance.phantom.shapes import spline, tube, widened
from appliance.phantom.texture import smooth_field
from appliance.phantom.tissues import Tissue
from appliance.phantom.trunk import arm_paths

if TYPE_CHECKING:
    from appliance.phantom.canvas import Canvas
    from appliance.phantom.frame import Frame, VertebralBody
    from appliance.phantom.grid import Floats

_CORTEX_MM = 1.3
# per rib: how far round it reaches (degrees from the back's midline to the breastbone) and how far it falls (mm)
_RIB_REACH = (165, 158, 152, 148, 145, 142, 138, 132, 124, 112, 88, 60)
_RIB_FALL = (24, 40, 52, 62, 70, 76, 80, 82, 80, 72, 50, 26)


def vertebra_tissue(name: str) -> int:
    """Return the label of a vertebral body."""
    return Tissue.VERTEBRA_FIRST + VERTEBRAE.index(name)


class SkeletonPainter:
    """Paints bones.

    Parameters
    ----------
    canvas, frame
        Where to paint, and whose bones.
    """

    def __init__(self, canvas: Canvas, frame: Frame) -> None:
        self.canvas = canvas
        self.frame = frame
        self.options = frame.options

    def paint(self) -> None:
        """Paint all bones."""
        self._paint_spine()
        self._paint_ribs()
        self._paint_breastbone()
        self._paint_shoulders()
        self._paint_pelvis()

    def _bone(self, segments: list[Segment], cortex_mm: float = _CORTEX_MM, marrow_hu: float | None = None) -> None:
        """Paint tubes as cortical bone with marrow inside."""
        found = self.canvas.tube_distance(segments, 2.0 * self.canvas.edge_mm)
        if found is None:
            return
        box, distance = found
        self.canvas.blend(distance, box, self.options.cortical_hu, Tissue.BONE)
        marrow = marrow_hu if marrow_hu is not None else 0.6 * self.options.trabecular_hu + 60.0
        self.canvas.blend(distance + cortex_mm, box, marrow, None)

    # --- spine --------------------------------------------------------------------------------------
    def _paint_spine(self) -> None:
        bodies = self.frame.vertebrae()
        self._paint_canal(bodies)
        discs = [(b.z_mm, b.y_mm, 0.0) for b in bodies]
        found = None
        if discs:
            low = (bodies[0].z_mm - 30.0, -60.0, -40.0)
            high = (bodies[-1].z_mm + 60.0, 110.0, 40.0)
            found = self.canvas.grid.slices(low, high)
        if found is not None:
            distance = self.canvas.distance(self._disc_column, found)
            self.canvas.blend(distance, found, 82.0, Tissue.DISC)
        for body in bodies:
            self._paint_posterior(body)
        for body in bodies:
            self._paint_body(body)
        self._paint_cervical()

    def _disc_column(self, z: Floats, y: Floats, x: Floats) -> Floats:
        bodies = self.frame.vertebrae()
        heights = [b.z_mm for b in bodies]
        half_width = np.interp(z, heights, [b.half_width_mm - 0.5 for b in bodies])
        half_depth = np.interp(z, heights, [b.half_depth_mm - 0.5 for b in bodies])
        dy = y - self.frame.spine_y(z)
        rho = np.sqrt((x / half_width) ** 2 + (dy / half_depth) ** 2)
        side = (rho - 1.0) * np.minimum(half_width, half_depth)
        ends = np.maximum(heights[0] - z, z - heights[-1])
        return np.asarray(np.maximum(side, ends), dtype=np.float32)

    def body_axes(self, body: VertebralBody) -> tuple[float, float]:
        """Return the cosine and sine of the body's lean in the sagittal plane."""
        angle = np.arctan(body.lean)
        return float(np.cos(angle)), float(np.sin(angle))

    def _paint_body(self, body: VertebralBody) -> None:
        reach = body.half_width_mm + 6.0
        low = (body.z_mm - body.height_mm, body.y_mm - reach, -reach)
        high = (body.z_mm + body.height_mm, body.y_mm + reach, reach)
        box = self.canvas.grid.slices(low, high)
        if box is None:
            return
        local = self.canvas.grid.crop(box)
        z, y, x = local.axes()
        distance = self.body_distance(body, z, y, x)
        self.canvas.blend(distance, box, 0.62 * self.options.cortical_hu, vertebra_tissue(body.name))
        texture = smooth_field(self.options.seed, "trabeculae", 3.0, local)
        inner = self.options.trabecular(body.name) + 6.0 * texture
        self.canvas.blend(distance + _CORTEX_MM, box, inner, None)
        # The basivertebral vein: a short cleft in the middle of the back wall.
        cos, sin = self.body_axes(body)
        along = (z - body.z_mm) * cos + (y - body.y_mm) * sin
        back = (y - body.y_mm) * cos - (z - body.z_mm) * sin
        vein = np.maximum(np.sqrt(along**2 + x**2) - 1.8, 0.72 * body.half_depth_mm - back)
        self.canvas.blend(np.maximum(vein, distance), box, 30.0, None)

    def body_distance(self, body: VertebralBody, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to a vertebral body: waisted, hollow behind, leaning with the spine, wedged when fractured."""
        cos, sin = self.body_axes(body)
        along = (z - body.z_mm) * cos + (y - body.y_mm) * sin
        depth = (y - body.y_mm) * cos - (z - body.z_mm) * sin
        half = 0.5 * body.height_mm
        waist = 1.0 - 0.09 * np.clip(1.0 - (along / half) ** 2, 0.0, 1.0)
        u, v = x / (body.half_width_mm * waist), depth / (body.half_depth_mm * waist)
        hollow = 0.28 * np.clip(1.0 - (x / (0.62 * body.half_width_mm)) ** 2, 0.0, 1.0) * np.clip(v, 0.0, 2.0)
        rho = (np.abs(u) ** 2.3 + np.abs(v * (1.0 + hollow)) ** 2.3) ** (1.0 / 2.3)
        side = (rho - 1.0) * np.float32(body.half_depth_mm)
        loss = self.loss(body.name)
        # The upper endplate of a wedge falls evenly from the back edge to the front edge.
        forward = np.clip(0.5 - 0.5 * depth / body.half_depth_mm, 0.0, 1.0)
        top = along - half + loss * body.height_mm * forward
        dish = 1.0 * np.clip(1.0 - u**2 - v**2, 0.0, 1.0)
        ends = np.maximum(top, -along - half) + dish
        return np.asarray(np.maximum(side, ends), dtype=np.float32)

    def loss(self, vertebra: str) -> float:
        """Return the anterior height lost by a body, 0 … 1."""
        fracture = self.options.wedge_fracture
        if fracture is None or fracture.vertebra != vertebra:
            return 0.0
        return fracture.height_loss_percent / 100.0

    def _paint_canal(self, bodies: list[VertebralBody]) -> None:
        course = []
        for body in bodies:
            cos, sin = self.body_axes(body)
            back = body.half_depth_mm + 9.0
            course.append((body.z_mm + sin * back, body.y_mm + cos * back, 0.0))
        last = course[-1]
        course.append((last[0] + 60.0, last[1] - 24.0, 0.0))
        course.insert(0, (course[0][0] - 50.0, course[0][1] + 16.0, 0.0))
        path = spline(course, 6.0)
        self.canvas.paint_tubes(tube(path, 9.5), -60.0, Tissue.SPINAL_CANAL)
        self.canvas.paint_tubes(tube(path, 7.2), 18.0, Tissue.SPINAL_CANAL)
        self.canvas.paint_tubes(tube(path[len(path) // 3 :], 4.2), 36.0, Tissue.SPINAL_CANAL)

    def _paint_posterior(self, body: VertebralBody) -> None:
        cos, sin = self.body_axes(body)
        lumbar = body.name.startswith("L")

        def at(along: float, back: float, x: float) -> tuple[float, float, float]:
            return body.z_mm + along * cos + back * sin, body.y_mm + back * cos - along * sin, x

        depth, height = body.half_depth_mm, body.height_mm
        arch = depth + 19.5
        thick = 4.2 if lumbar else 3.4
        segments = []
        for side in (-1.0, 1.0):
            x = side * (12.6 if lumbar else 11.4)
            up = 0.18 * height
            segments.append(
                Segment(
                    at(up, depth - 3.0, side * 0.62 * body.half_width_mm), at(up, depth + 9.0, x), thick + 0.6, thick
                )
            )
            segments.append(Segment(at(up, depth + 9.0, x), at(-0.05 * height, arch, side * 4.0), thick, thick - 0.6))
            segments.append(
                Segment(at(up - 1.0, depth + 9.0, x), at(0.75 * height, depth + 11.0, x * 1.05), thick, 3.4)
            )
            segments.append(Segment(at(up, depth + 10.0, x), at(-0.55 * height, depth + 13.0, x * 1.0), thick, 3.2))
            segments.append(
                Segment(at(-0.3 * height, depth + 12.5, x), at(-0.42 * height, arch, side * 3.0), thick, thick)
            )
            if lumbar:
                segments.append(Segment(at(up - 2.0, depth + 6.0, x), at(up, depth + 12.0, side * 43.0), 3.4, 2.4))
            else:
                segments.append(Segment(at(up, depth + 8.0, x), at(up + 2.0, depth + 20.0, side * 33.0), 3.6, 3.6))
        fall = 0.25 * height if lumbar else 0.9 * height
        for lower in (0.0, 0.28, 0.55) if lumbar else (0.0, 0.2):
            top, tip = (
                at(-lower * height, arch, 0.0),
                at(-lower * height - fall, arch + (28.0 if lumbar else 25.0), 0.0),
            )
            segments.append(Segment(top, tip, 3.0, 2.6))  # reads better than a generator here
        self._bone(segments)

    def _paint_cervical(self) -> None:
        z = self.frame.vertebrae()[-1].z_mm + 20.0 * self.frame.sz
        while z < self.canvas.grid.axis(0)[-1] + 20.0:
            y = float(self.frame.spine_y(z))
            segments = [
                Segment((z - 3.0, y, -5.0), (z - 3.0, y, 5.0), 8.0, 8.0),
                Segment((z + 3.0, y, -5.0), (z + 3.0, y, 5.0), 8.0, 8.0),
            ]
            for side in (-1.0, 1.0):
                segments.append(Segment((z, y + 6.0, side * 11.0), (z, y + 20.0, side * 17.0), 4.5, 4.5))
                segments.append(Segment((z, y + 20.0, side * 17.0), (z - 2.0, y + 32.0, side * 3.0), 3.0, 3.0))
            segments.append(Segment((z - 2.0, y + 32.0, 0.0), (z - 8.0, y + 46.0, 0.0), 3.0, 3.0))
            self._bone(segments)
            z += 18.0 * self.frame.sz

    # --- cage ---------------------------------------------------------------------------------------
    def rib(self, number: int, side: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the course of a rib and of its cartilage, ``(n, 3)`` each."""
        body = next(b for b in self.frame.vertebrae() if b.name == f"T{number}")
        reach, fall = _RIB_REACH[number - 1], _RIB_FALL[number - 1] * self.frame.sz
        start_z = body.z_mm + 0.2 * body.height_mm
        angles = np.linspace(0.0, 1.0, 30)
        points = [
            (start_z, body.y_mm + 0.6 * body.half_depth_mm, side * (body.half_width_mm - 1.0)),
            (start_z + 1.0, body.y_mm + body.half_depth_mm + 13.0, side * 32.0),
        ]
        for part in angles:
            degrees = 33.0 + part * (reach - 33.0)
            z = start_z - fall * (0.08 + 0.92 * np.sin(0.5 * np.pi * min(part * 1.02, 1.0)) ** 1.5)
            points.append(self._on_cage(z, degrees, side))
        tip = points[-1]
        cartilage: list[tuple[float, float, float]] = []
        if number <= 10:  # ribs 11 and 12 end free in the wall
            joint_z = float(np.interp(number, (1, 7, 10), (186.0, 62.0, 40.0))) * self.frame.sz
            for part in (0.0, 0.35, 0.7, 1.0):
                degrees = reach + part * (172.0 - reach) * (1.0 if number <= 7 else 0.55)
                z = tip[0] + (joint_z - tip[0]) * part**1.3 * (1.0 if number <= 7 else 0.5)
                cartilage.append(self._on_cage(z, degrees, side))
        return np.array(points), np.array(cartilage)

    def _on_cage(self, z: float, degrees: float, side: float) -> tuple[float, float, float]:
        """Return the point of the cage at an angle from the back's midline, in the middle of the ribs' layer."""
        front, back, half_width = (float(v[0]) for v in self.frame.cavity_outline(np.array([z], dtype=np.float32)))
        outward = 5.5
        angle = np.deg2rad(degrees)
        power = 2.0 / 2.25
        x = side * (half_width + outward) * np.abs(np.sin(angle)) ** power
        y = (
            0.5 * (front + back)
            + (0.5 * (back - front) + outward) * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        )
        return z, float(y), float(x)

    def _paint_ribs(self) -> None:
        for number in range(1, 13):
            for side in (-1.0, 1.0):
                bone, cartilage = self.rib(number, side)
                path = spline(bone, 5.0)
                width = 3.6 if number not in {1, 12} else 3.0
                # Ribs are taller than thick: two tubes, one above the other.
                up = np.array([2.1, 0.0, 0.0])
                self._bone(tube(path + up, width) + tube(path - up, width), 1.1)
                if len(cartilage):
                    course = spline(cartilage, 6.0)
                    self.canvas.paint_tubes(tube(course + up, 4.2) + tube(course - up, 4.2), 95.0, Tissue.CARTILAGE)

    def _paint_breastbone(self) -> None:
        heights = np.array([38.0, 52.0, 64.0, 76.0, 100.0, 124.0, 148.0, 160.0, 166.0, 180.0, 192.0])
        halves = np.array([3.0, 6.0, 13.0, 17.0, 16.0, 14.0, 12.0, 12.5, 19.0, 25.0, 22.0])
        segments = []
        for z in np.arange(38.0, 193.0, 4.0):
            y = self._on_cage(z * self.frame.sz, 179.0, 1.0)[1] - 1.0
            reach = max(float(np.interp(z, heights, halves)) - 4.8, 0.5) * self.frame.sx
            segments.append(Segment((z * self.frame.sz, y, -reach), (z * self.frame.sz, y, reach), 4.8, 4.8))
        self._bone(segments, 1.0)

    # --- shoulder and pelvis ------------------------------------------------------------------------
    def _paint_shoulders(self) -> None:
        lift = 0.0 if self.options.arms_down else 26.0
        for side in (-1.0, 1.0):

            def p(z: float, y: float, x: float, side: float = side) -> tuple[float, float, float]:
                return self.frame.point(z, y, x * side)

            clavicle = spline(
                [
                    p(192, -62, 20),
                    p(202 + 0.3 * lift, -66, 55),
                    p(214 + 0.6 * lift, -46, 95),
                    p(220 + lift, -14, 128),
                    p(222 + lift, 0, 146),
                ],
                5.0,
            )
            self._bone(tube(clavicle, 5.2), 1.4)
            lower = p(88 + 0.8 * lift, 98, 98 + 0.6 * lift)
            blade = []
            for part in np.linspace(0.0, 1.0, 26):
                upper = p(208 + 0.8 * lift - 20.0 * part, 84 - 46.0 * part, 72 + 62.0 * part + 0.3 * lift)
                blade.append(Segment(lower, upper, 2.2, 2.2))
            blade.append(Segment(lower, p(188 + 0.8 * lift, 38, 134 + 0.3 * lift), 4.0, 4.5))
            blade.append(Segment(p(198 + lift, 92, 78), p(222 + lift, 40, 140), 3.5, 4.5))
            blade.append(Segment(p(190 + lift, 34, 136), p(200 + lift, 30, 138), 12.0, 12.0))
            self._bone(blade, 1.3)
        for arm in arm_paths(self.frame):
            shaft = arm if self.options.arms_down else arm[len(arm) // 4 :]
            head = tuple(shaft[0, :3])
            segments = [Segment(head, head, 21.0, 21.0), *tube(shaft, 11.0)]
            self._bone(segments, 2.5, 40.0)

    def _paint_pelvis(self) -> None:
        for side in (-1.0, 1.0):

            def p(z: float, y: float, x: float, side: float = side) -> tuple[float, float, float]:
                return self.frame.point(z, y, x * side)

            crest = spline(
                [
                    p(-236, 78, 44),
                    p(-205, 74, 66),
                    p(-190, 50, 96),
                    p(-189, 20, 116),
                    p(-200, -12, 126),
                    p(-226, -42, 122),
                ],
                4.0,
            )
            hinge = spline([p(-290, 66, 44), p(-300, 40, 66), p(-310, 10, 84), p(-305, -16, 96)], 4.0)
            blade = []
            for part in np.linspace(0.0, 1.0, 46):
                top = crest[int(part * (len(crest) - 1))]
                low = hinge[int(part * (len(hinge) - 1))]
                blade.append(Segment(tuple(top), tuple(low), 4.0, 5.0))
            blade += widened(tube(crest, 5.5), 0.0)
            self._bone(blade, 1.6)
        y = float(self.frame.spine_y(-262.0 * self.frame.sz))
        z = -262.0 * self.frame.sz
        sacrum = [
            Segment((z, y + 4.0, -24.0), (z, y + 4.0, 24.0), 14.0, 14.0),
            Segment((z - 8, y + 14.0, -46.0), (z - 8, y + 14.0, 46.0), 13.0, 13.0),
            Segment((z - 40, y + 30.0, -30.0), (z - 40, y + 30.0, 30.0), 15.0, 15.0),
        ]
        self._bone(sacrum, 1.6)
