"""Organs below the diaphragm: liver, spleen, stomach, kidneys, pancreas, bowel and the muscles behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom import courses
from appliance.phantom.gut import GutPainter, below_diaphragm
from appliance.phantom.lungs import dome
from appliance.phantom.shapes import ellipsoid, smooth_union, spline, tube
from appliance.phantom.texture import generator, smooth_field
from appliance.phantom.tissues import Tissue
from appliance.phantom.trees import grow

if TYPE_CHECKING:
    from appliance.phantom.canvas import Box, Canvas
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats, Vector

_KIDNEYS = {"left": ((-90.0, 22.0, 61.0), Tissue.KIDNEY_LEFT), "right": ((-104.0, 22.0, -61.0), Tissue.KIDNEY_RIGHT)}
_KIDNEY_RADII = (53.0, 24.0, 27.0)


class AbdomenPainter:
    """Paints everything between the diaphragm and the pelvis.

    Parameters
    ----------
    canvas, frame
        Where to paint, and whose abdomen.
    """

    def __init__(self, canvas: Canvas, frame: Frame) -> None:
        self.canvas = canvas
        self.frame = frame
        self.options = frame.options
        self.contrast = 1.0 if frame.options.contrast_in_image else 0.0
        self.blood = frame.options.blood_hu + 120.0 * self.contrast

    def paint(self) -> None:
        """Paint muscles first, then organs from the back to the front."""
        self._paint_muscles()
        self._paint_diaphragm()
        gut = GutPainter(self.canvas, self.frame)
        gut.paint_bowel()
        absent = self.options.missing_organs
        for side in ("left", "right"):
            if f"kidney_{side}" not in absent:
                self._paint_kidney(side)
        for name, paint in (
            ("stomach", gut.paint_stomach),
            ("pancreas", self._paint_pancreas),
            ("spleen", self._paint_spleen),
            ("liver", self._paint_liver),
            ("gallbladder", self._paint_gallbladder),
        ):
            if name not in absent:
                paint()
        self._paint_adrenals()

    def _box(self, low: Vector, high: Vector) -> Box | None:
        return self.canvas.grid.slices(self.frame.point(*low), self.frame.point(*high), 2.0)

    def _ripple(self, name: str, length_mm: float, box: Box) -> Floats:
        return smooth_field(self.options.seed, name, length_mm, self.canvas.grid.crop(box))

    # --- wall ---------------------------------------------------------------------------------------
    def _paint_muscles(self) -> None:
        muscle = self.options.muscle_hu
        scale = self.options.muscle_scale
        for side in (-1.0, 1.0):
            spine = self.frame.spine_y
            sz = self.frame.sz
            psoas = np.array(
                [
                    (z * sz, float(spine(z * sz)) + back, side * left * self.frame.sx, radius * scale)
                    for z, back, left, radius in (
                        (-52, 6, 24, 4),
                        (-80, 2, 29, 8),
                        (-115, -1, 34, 12.5),
                        (-150, -3, 38, 16),
                        (-190, -5, 42, 18.5),
                        (-235, -18, 50, 18),
                        (-300, -50, 66, 15),
                    )
                ]
            )
            found = self.canvas.tube_distance(tube(spline(psoas, 5.0)), 6.0)
            if found is not None:
                box, distance = found
                distance += 1.0 * self._ripple("psoas", 12.0, box)
                self.canvas.blend(distance, box, muscle + 3.0 * self._ripple("psoas hu", 6.0, box), Tissue.MUSCLE)
            square = np.array(
                [
                    (z * sz, float(spine(z * sz)) + back, side * left * self.frame.sx, 8.5 * scale)
                    for z, back, left in ((-60, 26, 52), (-110, 26, 58), (-150, 26, 64), (-188, 28, 72))
                ]
            )
            self.canvas.paint_tubes(tube(spline(square, 6.0)), muscle, Tissue.MUSCLE)
        self._paint_white_line()

    def _paint_white_line(self) -> None:
        box = self._box((-300.0, -120.0, -60.0), (40.0, -50.0, 60.0))
        if box is not None:  # the rectus muscles stand out from the belly's fat, parted by the white line
            local = self.canvas.grid.crop(box)
            _, _, x = local.axes()
            seam = np.clip(1.0 - np.abs(x) / 3.0, 0.0, 1.0) * (self.canvas.tissue[box] == Tissue.MUSCLE)
            self.canvas.hu[box] += seam * np.float32(-70.0)

    def _paint_diaphragm(self) -> None:
        box = self._box((-100.0, -100.0, -138.0), (40.0, 92.0, 138.0))
        if box is None:
            return

        def shape(z: Floats, y: Floats, x: Floats) -> Floats:
            gap = (z - dome(self.frame, y, x)) * 0.72
            return np.asarray(np.maximum(np.abs(gap + 1.5) - 1.6, self.frame.cavity(z, y, x) + 0.5), dtype=np.float32)

        fat = np.isin(self.canvas.tissue[box], (Tissue.VISCERAL_FAT, Tissue.MEDIASTINAL_FAT))
        distance = self.canvas.distance(shape, box)
        self.canvas.blend(distance, box, self.options.muscle_hu, Tissue.DIAPHRAGM, fat)

    # --- organs -------------------------------------------------------------------------------------
    def _paint_liver(self) -> None:
        box = self._box((-165.0, -96.0, -136.0), (30.0, 80.0, 85.0))
        if box is None:
            return
        point, scale = self.frame.point, self.options.liver_scale
        size = (self.frame.sz * scale, self.frame.sy * scale, self.frame.sx * scale)
        coarse = self.canvas.grid.crop(box).coarse(self.canvas.coarse_mm)
        bumps = 1.6 * smooth_field(self.options.seed, "liver surface", 26.0, coarse)

        def sized(z: float, y: float, x: float) -> Vector:
            return z * size[0], y * size[1], x * size[2]

        def shape(z: Floats, y: Floats, x: Floats) -> Floats:
            right = ellipsoid(z, y, x, point(-44.0, 0.0, -74.0), sized(88.0, 84.0, 64.0), (0.0, -6.0, 6.0))
            left = ellipsoid(z, y, x, point(-14.0, -58.0, 2.0), sized(34.0, 34.0, 66.0), (0.0, -16.0, 14.0))
            whole = smooth_union(right, left, 22.0)
            # The visceral surface is pressed in by kidney, stomach and vessels.
            dent = ellipsoid(z, y, x, point(-112.0, 30.0, -52.0), point(60.0, 34.0, 41.0))
            hilum = ellipsoid(z, y, x, point(-80.0, -14.0, -6.0), point(44.0, 25.0, 36.0))
            cava = np.sqrt((y - point(0, 0, 0)[1]) ** 2 + (x - point(0, 0, -25.0)[2]) ** 2) - 13.0
            carved = np.maximum(
                whole, -smooth_union(smooth_union(dent, hilum, 10.0), np.broadcast_to(cava, dent.shape), 4.0)
            )
            return np.asarray(np.maximum(carved + bumps, below_diaphragm(self.frame, z, y, x, 4.0)), dtype=np.float32)

        distance = self.canvas.distance(shape, box)
        base = self.options.liver_hu + 50.0 * self.contrast
        self.canvas.blend(distance, box, base + 2.0 * self._ripple("liver hu", 8.0, box), Tissue.LIVER)
        self._paint_liver_vessels()

    def _paint_liver_vessels(self) -> None:
        random = generator(self.options.seed, "liver vessels")
        cloud = random.uniform((-120.0, -70.0, -125.0), (15.0, 65.0, 45.0), size=(420, 3))
        z, y, x = (cloud[:, axis].astype(np.float32) for axis in range(3))
        inside = ellipsoid(z, y, x, (-44.0, -5.0, -68.0), (72.0, 70.0, 54.0)) < 0.0
        targets = cloud[inside] * np.array([self.frame.sz, self.frame.sy, self.frame.sx])
        half = len(targets) // 2
        hepatic = grow(self.frame.point(10.0, 2.0, -30.0), targets[:half], 6.0, 1.4, random)
        portal = grow(self.frame.point(-56.0, -18.0, -52.0), targets[half:], 5.4, 1.4, random)
        found = self.canvas.tube_distance(hepatic + portal, 3.0)
        if found is not None:
            tree_box, distance = found
            liver = self.canvas.tissue[tree_box] == Tissue.LIVER
            # Blood is darker than liver without contrast; the screening must cope with that.
            self.canvas.blend(distance, tree_box, self.blood, Tissue.VESSEL, liver)

    def _paint_spleen(self) -> None:
        box = self._box((-130.0, -60.0, 40.0), (25.0, 90.0, 136.0))
        if box is None:
            return
        scale = self.options.spleen_scale

        def shape(z: Floats, y: Floats, x: Floats) -> Floats:
            radii = tuple(r * scale for r in self.frame.point(58.0, 54.0, 34.0))
            body = ellipsoid(z, y, x, self.frame.point(-50.0, 30.0, 98.0), radii, (-32.0, 0.0, -14.0))  # type: ignore[arg-type]
            dent = ellipsoid(z, y, x, self.frame.point(-50.0, 2.0, 62.0), self.frame.point(54.0, 40.0, 30.0))
            return np.asarray(
                np.maximum(np.maximum(body, -dent), below_diaphragm(self.frame, z, y, x, 4.0)), dtype=np.float32
            )

        base = self.options.spleen_hu + 70.0 * self.contrast
        distance = self.canvas.distance(shape, box)
        self.canvas.blend(distance, box, base + 2.0 * self._ripple("spleen hu", 8.0, box), Tissue.SPLEEN)

    def _paint_kidney(self, side: str) -> None:
        centre, tissue = _KIDNEYS[side]
        sign = 1.0 if side == "left" else -1.0
        middle = self.frame.point(*centre)
        box = self.canvas.grid.slices(tuple(c - 62.0 for c in middle), tuple(c + 62.0 for c in middle))  # type: ignore[arg-type]
        if box is None:
            return
        radii = self.frame.point(*_KIDNEY_RADII)
        turn = (sign * -28.0, sign * 10.0, 8.0)

        def outer(z: Floats, y: Floats, x: Floats) -> Floats:
            return ellipsoid(z, y, x, middle, radii, turn)

        def sinus(z: Floats, y: Floats, x: Floats) -> Floats:
            inner = (middle[0], middle[1] - 7.0, middle[2] - sign * 15.0)
            return ellipsoid(z, y, x, inner, (radii[0] * 0.5, radii[1] * 0.42, radii[2] * 0.75), turn)

        distance = self.canvas.distance(outer, box) + 0.8 * self._ripple("kidney surface", 14.0, box)
        hollow = self.canvas.distance(sinus, box) + 2.2 * self._ripple("sinus", 9.0, box)
        fascia = np.abs(distance - 12.0 - 3.0 * self._ripple("gerota", 24.0, box)) - np.float32(0.4)
        fat = self.canvas.tissue[box] == Tissue.VISCERAL_FAT
        self.canvas.blend(np.asarray(fascia, dtype=np.float32), box, -40.0, None, fat)
        base = 32.0 + 110.0 * self.contrast
        self.canvas.blend(distance, box, base + 2.0 * self._ripple("kidney hu", 7.0, box), tissue)
        self.canvas.blend(np.maximum(hollow, distance).astype(np.float32), box, -80.0, Tissue.VISCERAL_FAT)
        pelvis = (middle[0] - 4.0, middle[1] - 9.0, middle[2] - sign * 20.0)
        self.canvas.paint_around(lambda z, y, x: ellipsoid(z, y, x, pelvis, (10.0, 6.0, 9.0)), pelvis, 14.0, 8.0, None)
        vein = [
            (*pelvis, 4.5),
            (pelvis[0] + 6.0, pelvis[1] - 6.0, sign * 30.0, 4.5),
            (pelvis[0] + 12.0, pelvis[1] - 14.0, sign * 14.0, 4.5),
        ]
        self.canvas.paint_tubes(tube(spline(vein, 4.0)), self.blood, Tissue.VESSEL)
        ureter = [
            (middle[0] - 16.0, pelvis[1], pelvis[2], 2.2),
            (middle[0] - 70.0, pelvis[1] - 4.0, sign * 42.0, 2.0),
            (middle[0] - 170.0, pelvis[1], sign * 36.0, 2.0),
        ]
        self.canvas.paint_tubes(tube(spline(ureter, 6.0)), 15.0, None)

    def paint_stone(self) -> None:
        """Paint the stone, a ball in the lower calyx; painted last so that nothing covers it."""
        options = self.options
        if options.kidney_stone_diameter_mm <= 0.0 or f"kidney_{options.kidney_stone_side}" in options.missing_organs:
            return
        centre = self.stone_centre()
        radius = 0.5 * options.kidney_stone_diameter_mm
        end = (centre[0] + 0.01, centre[1], centre[2])
        from appliance.phantom.canvas import Segment

        self.canvas.paint_tubes([Segment(centre, end, radius, radius)], options.kidney_stone_hu, Tissue.STONE)

    def stone_centre(self) -> Vector:
        """Return the middle of the stone, ``(z, y, x)`` mm."""
        side = self.options.kidney_stone_side
        sign = 1.0 if side == "left" else -1.0
        z, y, x = self.frame.point(*_KIDNEYS[side][0])
        return z - 17.0, y - 5.0, x - sign * 9.0

    def _paint_pancreas(self) -> None:
        course = np.array([(*self.frame.point(*p[:3]), p[3]) for p in courses.PANCREAS])
        found = self.canvas.tube_distance(tube(spline(course, 4.0)), 6.0)
        if found is not None:
            box, distance = found
            distance += 2.4 * self._ripple("lobules", 6.5, box)
            self.canvas.blend(
                distance,
                box,
                38.0 + 40.0 * self.contrast + 4.0 * self._ripple("pancreas hu", 5.0, box),
                Tissue.PANCREAS,
            )
        for points in (courses.PORTAL_VEIN, courses.SPLENIC_VEIN, courses.MESENTERIC_VEIN):
            vessel = np.array([(*self.frame.point(*p[:3]), p[3]) for p in points])
            self.canvas.paint_tubes(tube(spline(vessel, 4.0)), self.blood, Tissue.VESSEL)

    def _paint_gallbladder(self) -> None:
        centre = self.frame.point(-98.0, -52.0, -52.0)

        def shape(z: Floats, y: Floats, x: Floats) -> Floats:
            return ellipsoid(z, y, x, centre, (26.0, 13.0, 12.0), (0.0, -14.0, 24.0))

        self.canvas.paint_around(
            lambda z, y, x: shape(z, y, x) - np.float32(1.5), centre, 34.0, 38.0, Tissue.GALLBLADDER
        )
        self.canvas.paint_around(shape, centre, 34.0, 8.0, Tissue.GALLBLADDER)

    def _paint_adrenals(self) -> None:
        for sign, z in ((1.0, -46.0), (-1.0, -50.0)):
            base = (z, 26.0, sign * 36.0)
            for tip in ((z - 14.0, 36.0, sign * 30.0), (z - 14.0, 38.0, sign * 44.0)):
                course = [(*self.frame.point(*base), 3.0), (*self.frame.point(*tip), 2.2)]
                self.canvas.paint_tubes(tube(spline(course, 4.0)), 25.0, Tissue.ADRENAL)
