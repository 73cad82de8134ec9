"""Heart, great vessels, oesophagus and the fat around them: what lies between the lungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom import courses
from appliance.phantom.shapes import ellipsoid, smooth_union, spline, tube, widened
from appliance.phantom.texture import smooth_field
from appliance.phantom.tissues import Tissue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.phantom.canvas import Canvas, Segment
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats, Vector

# (centre z, y, x), (radii), (turns) of the heart's parts on the reference patient
_LEFT_VENTRICLE = ((54.0, -36.0, 38.0), (33.0, 31.0, 44.0), (-36.0, 14.0, 0.0))
_RIGHT_VENTRICLE = ((50.0, -60.0, 6.0), (31.0, 23.0, 42.0), (-14.0, 8.0, 0.0))
_RIGHT_ATRIUM = ((66.0, -30.0, -30.0), (34.0, 29.0, 23.0), (0.0, 0.0, 0.0))
_LEFT_ATRIUM = ((88.0, -4.0, 4.0), (22.0, 19.0, 32.0), (0.0, 0.0, 0.0))
# The fibrous middle, where the four chambers and the root of the aorta meet.
_MIDDLE = ((70.0, -30.0, 4.0), (26.0, 22.0, 26.0), (0.0, 0.0, 0.0))
_OUTFLOW = ((90.0, -60.0, 12.0), (24.0, 16.0, 17.0), (0.0, 0.0, 0.0))
# How deep below the pericardium the coronary arteries run.
_CORONARY_DEPTH_MM = 2.0


class Mediastinum:
    """Great vessels as centrelines and the outline against which the lungs lie.

    Parameters
    ----------
    frame
        The patient.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        options = frame.options
        self.scale = options.heart_scale
        spine = frame.spine_y
        point = frame.point
        ascending = 0.5 * options.ascending_aorta_diameter_mm
        descending = 0.5 * options.descending_aorta_diameter_mm
        abdominal = 0.5 * options.abdominal_aorta_diameter_mm
        sz = frame.sz

        def beside_spine(z: float, left: float, radius: float) -> tuple[float, float, float, float]:
            # The aorta slides from the left of the spine to its front; it must never cut the vertebral bodies.
            half_width = float(np.interp(z, (-224, -60, 150), (25.5, 22.0, 15.0))) * frame.sx
            half_depth = float(np.interp(z, (-224, -60, 150), (17.0, 16.5, 13.5))) * frame.sy
            angle = np.deg2rad(left)
            reach = radius + 2.5
            x = np.sin(angle) * (half_width + reach)
            y = float(spine(z * sz)) - np.cos(angle) * (half_depth + reach)
            return z * sz, y, x, radius

        turn = max(ascending, 16.0)
        root = [(*point(88.0, -34.0, 4.0), ascending + 1.5), (*point(97.0, -37.0, -4.0), ascending)]
        rise = [
            (*point(112.0, -38.0, -14.0), ascending),
            (*point(130.0, -37.0, -19.0), ascending),
            (*point(146.0, -35.0, -19.0), ascending),
        ]
        arch_radius = 0.5 * (ascending + descending)
        arch = [
            (*point(167.0 + 0.2 * (turn - 16), -25.0, -12.0), 0.6 * ascending + 0.4 * arch_radius),
            (*point(174.0 + 0.2 * (turn - 16), -6.0, 3.0), arch_radius),
            (*point(170.0, 14.0, 18.0), 0.5 * (arch_radius + descending)),
        ]
        down = [
            beside_spine(150.0, 70.0, descending),
            beside_spine(125.0, 66.0, descending),
            beside_spine(90.0, 60.0, descending),
            beside_spine(50.0, 52.0, descending),
            beside_spine(15.0, 38.0, descending),
            beside_spine(0.0, 32.0, descending),
        ]
        belly = [
            beside_spine(-55.0, 18.0, abdominal),
            beside_spine(-90.0, 14.0, abdominal),
            beside_spine(-140.0, 12.0, abdominal),
            beside_spine(-182.0, 8.0, abdominal),
        ]
        self.aorta = spline(root + rise + arch + down + belly, 3.0)
        # The spline's overshoot must not change the chosen diameters where they are constant.
        z = self.aorta[:, 0] / sz
        self.ascending_part = (z > 97.0) & (z < 146.0) & (self.aorta[:, 1] < point(0, -15, 0)[1])
        self.descending_part = (z > 0.0) & (z < 150.0) & (self.aorta[:, 1] > point(0, -10, 0)[1])
        self.abdominal_part = (z < -55.0) & (z > -182.0)
        self.aorta[self.ascending_part, 3] = ascending
        self.aorta[self.descending_part, 3] = descending
        self.aorta[self.abdominal_part, 3] = abdominal
        trunk = 0.5 * options.pulmonary_trunk_diameter_mm
        self.trunk = spline(
            [
                (*point(100.0, -62.0, 14.0), trunk),
                (*point(116.0, -56.0, 21.0), trunk),
                (*point(130.0, -42.0, 24.0), trunk),
                (*point(136.0, -30.0, 23.0), trunk),
            ],
            3.0,
        )
        branch = 0.36 * options.pulmonary_trunk_diameter_mm
        self.branches = [
            spline(
                [
                    (*point(135.0, -28.0, 20.0), trunk * 0.9),
                    (*point(132.0, -13.0, 0.0), branch + 1.0),
                    (*point(131.0, -5.0, -22.0), branch),
                    (*point(130.0, 2.0, -40.0), 7.0),
                ],
                3.0,
            ),
            spline(
                [
                    (*point(136.0, -26.0, 24.0), trunk * 0.9),
                    (*point(141.0, -10.0, 36.0), branch),
                    (*point(136.0, 4.0, 50.0), 7.0),
                ],
                3.0,
            ),
        ]
        self._spheres = self._lung_border_spheres()

    def course(self, points: Sequence[tuple[float, float, float, float]], step_mm: float = 4.0) -> list[Segment]:
        """Return tubes through reference points with radii."""
        scaled = np.array([(*self.frame.point(*p[:3]), p[3]) for p in points])
        return tube(spline(scaled, step_mm))

    def coronary(self, vessel: str) -> np.ndarray:
        """Course of a coronary artery, ``(n, 3)`` in ``(z, y, x)`` mm; drawn in to lie within the pericardium."""
        from scipy.ndimage import gaussian_filter1d

        course = np.asarray(spline([self.place(p) for p in courses.CORONARIES[vessel]], 2.0), dtype=np.float32)
        middle = np.array(self.place(_MIDDLE[0]), dtype=np.float32)
        share = np.linspace(0.0, 0.6, 61, dtype=np.float32)
        ways = share[:, None, None] * (middle - course) + course
        deep = self.sac(ways[..., 0], ways[..., 1], ways[..., 2]) <= -_CORONARY_DEPTH_MM
        pulled = gaussian_filter1d(share[np.argmax(deep, axis=0)], 3.0, mode="nearest")  # without a kink
        return np.asarray(course + pulled[:, None] * (middle - course), dtype=np.float64)

    def place(self, reference: tuple[float, float, float]) -> Vector:
        """Map a point of the heart; the heart is scaled about its apex region on the diaphragm."""
        z, y, x = reference
        s = self.scale
        return self.frame.point(104.0 + (z - 104.0) * (0.8 + 0.37 * s), -40.0 + (y + 40.0) * s, 8.0 + (x - 8.0) * s)

    def heart(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to the heart's muscle and chambers."""
        whole: Floats | None = None
        for centre, radii, turn in (_LEFT_VENTRICLE, _RIGHT_VENTRICLE, _RIGHT_ATRIUM, _LEFT_ATRIUM, _OUTFLOW, _MIDDLE):
            size = (
                radii[0] * self.frame.sz * self.scale,
                radii[1] * self.frame.sy * self.scale,
                radii[2] * self.frame.sx * self.scale,
            )
            part = ellipsoid(z, y, x, self.place(centre), size, turn)
            whole = part if whole is None else smooth_union(whole, part, 13.0)
        assert whole is not None
        return whole

    def sac(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to the pericardium: the heart with its grooves filled."""
        whole: Floats | None = None
        for centre, radii, turn in (_LEFT_VENTRICLE, _RIGHT_VENTRICLE, _RIGHT_ATRIUM, _OUTFLOW, _LEFT_ATRIUM):
            size = (
                radii[0] * self.frame.sz * self.scale,
                radii[1] * self.frame.sy * self.scale,
                radii[2] * self.frame.sx * self.scale,
            )
            part = ellipsoid(z, y, x, self.place(centre), size, turn)
            whole = part if whole is None else smooth_union(whole, part, 20.0)
        assert whole is not None
        return whole - np.float32(3.0)

    def middle_x(self, z: Floats, y: Floats) -> Floats:
        """Where the two lungs meet, front or back: a little left of the midline in front."""
        reference = np.asarray(z) / self.frame.sz
        lean = np.interp(reference, (20.0, 60.0, 120.0, 170.0), (26.0, 14.0, 2.0, 0.0)) * self.frame.sx
        return np.asarray(lean * (y < 0.0), dtype=np.float32)

    def _lung_border_spheres(self) -> np.ndarray:
        """Points with radii, ``(n, 4)``, whose union the lungs must not enter."""
        rows = [np.column_stack([self.aorta[:, :3], self.aorta[:, 3] + 2.0])[::2]]
        rows.append(np.column_stack([self.trunk[:, :3], self.trunk[:, 3] + 2.5])[::2])
        rows.extend(np.column_stack([part[:, :3], part[:, 3] + 2.5])[::2] for part in self.branches)
        for points, extra in (
            (courses.SUPERIOR_VENA_CAVA, 1.5),
            (courses.INFERIOR_VENA_CAVA[:3], 1.5),
            *((b[:4], 3.0) for b in courses.NECK_VESSELS),
            *((v, 2.0) for v in courses.PULMONARY_VEINS),
        ):
            scaled = np.array([(*self.frame.point(*p[:3]), p[3] + extra) for p in points])
            rows.append(spline(scaled, 6.0))
        windpipe = [
            (262, -30, 0, 12),
            (215, -14, -1, 12),
            (175, 2, -2, 12),
            (147, 8, 0, 13),
            (134, 13, -16, 11),
            (120, 15, -33, 9.5),
            (132, 15, 20, 10),
            (120, 17, 40, 9.5),
            (136, 14, 0, 13),
            (124, 16, -2, 14),
        ]
        rows.append(np.array([(*self.frame.point(*p[:3]), p[3]) for p in windpipe]))
        gullet = spline([self.frame.point(*p) for p in courses.OESOPHAGUS], 8.0)
        rows.append(np.column_stack([gullet, np.full(len(gullet), 10.0)]))
        spine = [(b.z_mm, b.y_mm + 2.0, 0.0, b.half_width_mm + 2.5) for b in self.frame.vertebrae()]
        rows.append(spline(spine, 8.0))
        return np.vstack(rows)

    def distance(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """Distance to everything between the lungs, its pleura included."""
        frame = self.frame
        # The heart rests on the diaphragm: no lung between them.
        sac = self.sac(np.maximum(z, np.float32(36.0 * frame.sz)), y, x) - np.float32(2.0)
        shape = np.broadcast_shapes(z.shape, y.shape, x.shape)
        near = np.full(shape, 60.0, dtype=np.float32)
        for row in self._spheres.astype(np.float32):
            near = np.minimum(near, np.sqrt((z - row[0]) ** 2 + (y - row[1]) ** 2 + (x - row[2]) ** 2) - row[3])
        whole = smooth_union(sac, near, 9.0)
        # Fat in front of the great vessels, and the gutter behind them beside the spine.
        reference = z / frame.sz
        half = (
            np.interp(reference, (0.0, 60.0, 110.0, 150.0, 200.0, 240.0), (18.0, 6.0, 3.5, 7.0, 22.0, 26.0)) * frame.sx
        )
        wedge = (np.abs(x - self.middle_x(z, y)) - np.asarray(half, dtype=np.float32)) + np.clip(
            (y / frame.sy + 20.0) * 0.4, 0.0, 30.0
        )
        back = np.abs(x) - frame.sx * 15.0 + np.clip((40.0 - y / frame.sy) * 0.5, 0.0, 60.0)
        return np.asarray(np.minimum(smooth_union(whole, wedge, 10.0), back), dtype=np.float32)

    def paint(self, canvas: Canvas) -> None:
        """Paint fat, heart, vessels and oesophagus."""
        frame = self.frame
        options = frame.options
        enhancement = 150.0 if options.contrast_in_image else 0.0
        blood = options.blood_hu + enhancement
        seed = options.seed
        low = frame.point(5.0, -105.0, -90.0)
        high = frame.point(125.0, 40.0, 105.0)
        canvas.paint(lambda z, y, x: self.sac(z, y, x) - 1.2, low, high, 25.0, None)
        found = canvas.paint(self.sac, low, high, options.fat_hu + 5.0, Tissue.EPICARDIAL_FAT)
        if found is not None:
            box, _ = found
            local = canvas.grid.crop(box)
            muscle = 50.0 + 0.6 * enhancement + 2.0 * smooth_field(seed, "heart", 9.0, local)
            ripple = smooth_field(seed, "heart wall", 22.0, local)
            distance = canvas.distance(self.heart, box)
            canvas.blend(distance - 0.2 + 0.8 * ripple, box, muscle, Tissue.HEART)
            self._paint_chambers(canvas, blood)
        self._paint_coronaries(canvas, blood)
        canvas.paint_tubes(widened(tube(self.aorta), 0.0), blood, Tissue.AORTA)
        self._paint_small_vessels(canvas, blood)
        canvas.paint_tubes(tube(self.trunk), blood + 0.3 * enhancement, Tissue.PULMONARY_TRUNK)
        gullet = spline([frame.point(*p) for p in courses.OESOPHAGUS], 5.0)
        canvas.paint_tubes(tube(gullet, 7.0), 38.0, Tissue.OESOPHAGUS)
        lumen = gullet[10:14]
        canvas.paint_tubes(tube(lumen, 1.8), -500.0, None)

    def _paint_chambers(self, canvas: Canvas, blood: float) -> None:
        shrink = {"LV": 10.0, "RV": 4.0, "RA": 3.0, "LA": 3.0}
        for name, (centre, radii, turn) in (
            ("LV", _LEFT_VENTRICLE),
            ("RV", _RIGHT_VENTRICLE),
            ("RA", _RIGHT_ATRIUM),
            ("LA", _LEFT_ATRIUM),
        ):
            less, times = shrink[name], self.scale
            size = (
                radii[0] * times * self.frame.sz - less,
                radii[1] * times * self.frame.sy - less,
                radii[2] * times * self.frame.sx - less,
            )
            middle = self.place(centre)

            def chamber(
                z: Floats, y: Floats, x: Floats, m: Vector = middle, s: Vector = size, t: Vector = turn
            ) -> Floats:
                return ellipsoid(z, y, x, m, s, t)

            canvas.paint_around(chamber, middle, 52.0, blood, Tissue.HEART)

    def _paint_coronaries(self, canvas: Canvas, blood: float) -> None:
        paths = [self.coronary(name) for name in courses.CORONARIES]
        groove = [segment for path in paths[1:] for segment in tube(path, 5.0)]
        canvas.paint_tubes(groove, self.frame.options.fat_hu + 10.0, Tissue.EPICARDIAL_FAT)
        canvas.paint_tubes([s for path in paths for s in tube(path, 1.7)], blood, Tissue.CORONARY)

    def _paint_small_vessels(self, canvas: Canvas, blood: float) -> None:
        for points in (
            courses.SUPERIOR_VENA_CAVA,
            courses.INFERIOR_VENA_CAVA,
            courses.AZYGOS,
            *courses.NECK_VESSELS,
            *courses.PULMONARY_VEINS,
        ):
            segments = self.course(points)
            found = canvas.tube_distance(segments, 2.0 * canvas.edge_mm)
            if found is None:
                continue
            box, distance = found
            free = canvas.tissue[box] != Tissue.AORTA
            canvas.blend(distance, box, blood, Tissue.VESSEL, free)
        for side in (-1.0, 1.0):  # iliac arteries
            course = [(-180.0, 8.0, 5.0, 6.5), (-205.0, 10.0, side * 26.0, 5.5), (-260.0, 14.0, side * 50.0, 5.0)]
            canvas.paint_tubes(self.course(course), blood, Tissue.VESSEL)
        for part in self.branches:
            found = canvas.tube_distance(tube(part), 2.0 * canvas.edge_mm)
            if found is not None:
                free = canvas.tissue[found[0]] != Tissue.AORTA
                canvas.blend(found[1], found[0], blood, Tissue.PULMONARY_TRUNK, free)
