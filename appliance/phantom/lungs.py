"""Lungs: their outline against wall, mediastinum and diaphragm; parenchyma, emphysema, effusion, bronchi, vessels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom import courses
from appliance.phantom.resolution import softened
from appliance.phantom.shapes import smooth_union, spline, tube, widened
from appliance.phantom.texture import generator, smooth_field
from appliance.phantom.tissues import Tissue
from appliance.phantom.trees import grow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.canvas import Box, Canvas, Segment, Shape
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats
    from appliance.phantom.mediastinum import Mediastinum

EMPHYSEMA_HU = -985.0
_THRESHOLD_HU = -950.0
_FALL_HU = 170.0
_CALIBRATIONS, _RUN = 4, 14
_APEX_Z = 243.0


@dataclass(frozen=True, slots=True)
class Side:
    """Names and values of one lung."""

    sign: float
    lung: Tissue
    vessel: Tissue
    effusion: Tissue
    hilum_artery: tuple[float, float, float]
    hilum_vein: tuple[float, float, float]
    bronchus: tuple[tuple[float, float, float, float], ...]


RIGHT = Side(
    -1.0,
    Tissue.LUNG_RIGHT,
    Tissue.LUNG_VESSEL_RIGHT,
    Tissue.EFFUSION_RIGHT,
    (130.0, 2.0, -40.0),
    (92.0, 4.0, -32.0),
    ((147.0, 10.0, 0.0, 8.5), (134.0, 13.0, -16.0, 7.4), (120.0, 15.0, -34.0, 6.6)),
)
LEFT = Side(
    1.0,
    Tissue.LUNG_LEFT,
    Tissue.LUNG_VESSEL_LEFT,
    Tissue.EFFUSION_LEFT,
    (136.0, 4.0, 50.0),
    (96.0, 6.0, 38.0),
    ((147.0, 10.0, 0.0, 8.5), (132.0, 15.0, 20.0, 6.6), (118.0, 18.0, 42.0, 6.0)),
)
SIDES = (RIGHT, LEFT)


def dome(frame: Frame, y: Floats, x: Floats) -> Floats:
    """Height of the diaphragm at a place, mm: two domes that fall to the recess, deepest behind."""
    u, v = np.asarray(x) / frame.sx, np.asarray(y) / frame.sy
    side = np.clip(0.5 - u / 40.0, 0.0, 1.0)
    top = 8.0 + 14.0 * side
    outward = np.clip((np.abs(u) - 62.0) / 72.0, -0.85, 1.2)
    across = np.where(outward > 0, 58.0 * outward**2, 14.0 * outward**2)
    backward = (v + 18.0) / 98.0
    along = np.where(backward > 0, 64.0 * backward**2, 34.0 * backward**2)
    inspiration = 60.0 * (1.0 - frame.options.lung_height_scale)
    return np.asarray((top - across - along + inspiration) * frame.sz, dtype=np.float32)


def lung_distance(frame: Frame, mediastinum: Mediastinum, sign: float) -> Shape:
    """Return the shape of one lung as a function of ``(z, y, x)``."""

    def shape(z: Floats, y: Floats, x: Floats) -> Floats:
        wall = frame.cavity(z, y, x) + 2.2
        floor = (dome(frame, y, x) - z) * 0.72
        cap_x, cap_y = (np.abs(x) / frame.sx - 30.0) / 58.0, (y / frame.sy - 4.0) / 80.0
        roof = (z - frame.sz * (_APEX_Z - 34.0 * (cap_x**2 + cap_y**2))) * 0.55
        inner = -mediastinum.distance(z, y, x)
        divide = 2.5 - sign * (x - mediastinum.middle_x(z, y))
        # A rounded edge: the recess must not thin out to slivers that no voxel can hold.
        edge = -smooth_union(-wall, -floor, 9.0)
        outside = np.maximum(edge, np.maximum(roof, inner))
        return np.asarray(np.maximum(outside, divide), dtype=np.float32)

    return shape


def _emphysematous(hu: Floats, field: Floats, level: float) -> Floats:
    """Densities where emphysema begins at a level of a field.

    The density falls evenly through the threshold, so that blur moves about as much lung below it as above it.
    """
    fallen = np.maximum(_THRESHOLD_HU - 0.01 - _FALL_HU * (field - level), EMPHYSEMA_HU)
    return np.asarray(np.minimum(hu, fallen), dtype=np.float32)


class LungPainter:
    """Paints both lungs and everything in them.

    Parameters
    ----------
    canvas, frame, mediastinum
        Where to paint, whose body, and what lies between the lungs.
    """

    def __init__(self, canvas: Canvas, frame: Frame, mediastinum: Mediastinum) -> None:
        self.canvas = canvas
        self.frame = frame
        self.mediastinum = mediastinum
        self.seed = frame.options.seed

    def box(self, side: Side) -> Box | None:
        """Index box around one lung."""
        sx, sy, sz = self.frame.sx, self.frame.sy, self.frame.sz
        inner, outer = -25.0 * sx, 140.0 * sx
        low_x, high_x = (inner, outer) if side.sign > 0 else (-outer, -inner)
        return self.canvas.grid.slices((-90.0 * sz, -100.0 * sy, low_x), (250.0 * sz, 96.0 * sy, high_x))

    def paint(self) -> None:
        """Paint parenchyma, effusion, vessels, bronchi and emphysema."""
        parts: list[tuple[Side, Box]] = []
        for side in SIDES:
            box = self.box(side)
            if box is None:
                continue
            shape = lung_distance(self.frame, self.mediastinum, side.sign)
            distance = self.canvas.distance(shape, box)
            distance += 1.1 * smooth_field(self.seed, "pleura", 26.0, self.canvas.grid.crop(box))
            distance[self._bone(box)] = 3.0  # the lung lies against bone, it does not enter it
            self._paint_parenchyma(side, box, distance)
            self._paint_effusion(side, box, distance)
            parts.append((side, box))
        for side, _ in parts:
            self._paint_vessels(side)
        self._paint_airways([side for side, _ in parts])
        for side, box in parts:
            self._paint_fissures(side, box)
            self._paint_emphysema(side, box)

    def _bone(self, box: Box) -> NDArray[np.bool_]:
        tissue = self.canvas.tissue[box]
        hard = (tissue == Tissue.BONE) | (tissue == Tissue.CARTILAGE) | (tissue == Tissue.DISC)
        return np.asarray(hard | ((tissue >= Tissue.VERTEBRA_FIRST) & (tissue <= Tissue.VERTEBRA_LAST)))

    def _seen(self, box: Box) -> slice:
        """The slices of a box that the scan shows, counted from the box's first."""
        seen = self.canvas.seen
        return slice(max(seen.start - box[0].start, 0), max(min(seen.stop, box[0].stop) - box[0].start, 0))

    def _paint_parenchyma(self, side: Side, box: Box, distance: Floats) -> None:
        local = self.canvas.grid.crop(box)
        # The thin line of pleura keeps the lung apart from fat and muscle.
        self.canvas.blend(distance - 0.8, box, 0.0, None)
        _, y, _ = local.axes()
        texture = smooth_field(self.seed, "parenchyma", 5.0, local)
        hu = self.frame.options.lung_hu + 0.16 * y + 9.0 * texture
        # Healthy lung stays above the threshold of emphysema, however airy it is.
        self.canvas.blend(distance, box, np.maximum(hu, np.float32(-942.0)).astype(np.float32), side.lung)

    def _targets(self, side: Side, count: int, name: str) -> NDArray[np.float64]:
        """Random points inside a lung; the same whatever grid it is painted on."""
        random = generator(self.seed, f"{name}/{side.lung.name}")
        sx, sy, sz = self.frame.sx, self.frame.sy, self.frame.sz
        reach = random.uniform(
            (-90.0 * sz, -100.0 * sy, min(0.0, side.sign * 140.0 * sx)),
            (250.0 * sz, 96.0 * sy, max(0.0, side.sign * 140.0 * sx)),
            size=(count * 5, 3),
        ).astype(np.float32)
        shape = lung_distance(self.frame, self.mediastinum, side.sign)
        columns = (reach[:, 0].reshape(-1, 1, 1), reach[:, 1].reshape(-1, 1, 1), reach[:, 2].reshape(-1, 1, 1))
        inside = shape(*columns).ravel() < -3.0  # mm from the surface
        return np.asarray(reach[inside][:count], dtype=np.float64)

    def _paint_vessels(self, side: Side) -> None:
        segments: list[Segment] = []
        for root, name, radius in ((side.hilum_artery, "artery", 6.6), (side.hilum_vein, "vein", 6.2)):
            targets = self._targets(side, 700, name)
            random = generator(self.seed, f"{name}/bend/{side.lung.name}")
            segments += grow(self.frame.point(*root), targets, radius, 0.42, random)
        # What is much thinner than a voxel would not be seen.
        segments = [s for s in segments if s.start_radius > 0.25 * self.canvas.edge_mm]
        found = self.canvas.tube_distance(segments, 2.0 * self.canvas.edge_mm)
        if found is None:
            return
        tree_box, tree = found
        edge = self.canvas.edge_mm
        cover = np.clip(0.5 - tree / edge, 0.0, 1.0)
        # A vessel thinner than a voxel fills only part of it.
        cover = np.where(cover < 0.95, cover * np.clip(0.35 + cover, 0.0, 1.0), cover)
        label = self.canvas.tissue[tree_box]
        cover *= label == side.lung
        blood = self.frame.options.blood_hu + (160.0 if self.frame.options.contrast_in_image else 0.0)
        view = self.canvas.hu[tree_box]
        view += cover * (blood - view)
        label[cover > 0.5] = side.vessel  # half a voxel

    def _paint_airways(self, sides: list[Side]) -> None:
        point = self.frame.point
        trachea = np.array([(*point(*p[:3]), p[3]) for p in courses.TRACHEA])
        stems = tube(spline(trachea, 6.0))
        tree: list[Segment] = []
        for side in sides:
            stem = np.array([(*point(*p[:3]), p[3]) for p in side.bronchus])
            stems += tube(spline(stem, 4.0))
            targets = self._targets(side, 150, "bronchus")
            random = generator(self.seed, f"bronchus/bend/{side.lung.name}")
            end = (float(stem[-1, 0]), float(stem[-1, 1]), float(stem[-1, 2]))
            tree += grow(end, targets, 5.2, 1.1, random)
        tree = [s for s in tree if s.start_radius > 0.6 * self.canvas.edge_mm]
        self.canvas.paint_tubes(widened(stems, 1.6), 25.0, Tissue.AIRWAY_WALL)
        self._paint_bronchi(tree)
        self.canvas.paint_tubes(stems, -998.0, Tissue.AIRWAY_LUMEN)

    def _paint_bronchi(self, tree: list[Segment]) -> None:
        """A bronchus runs beside its artery and does not cut it; in fluid the lung has collapsed and none is seen."""
        closed = (
            Tissue.LUNG_VESSEL_LEFT,
            Tissue.LUNG_VESSEL_RIGHT,
            Tissue.EFFUSION_LEFT,
            Tissue.EFFUSION_RIGHT,
        )
        for widening, hu, tissue in ((0.9, -150.0, Tissue.AIRWAY_WALL), (0.0, -998.0, Tissue.AIRWAY_LUMEN)):
            found = self.canvas.tube_distance(widened(tree, widening), 2.0 * self.canvas.edge_mm)
            if found is not None:
                box, distance = found
                free = ~np.isin(self.canvas.tissue[box], closed)
                self.canvas.blend(distance, box, hu, tissue, free)

    def _paint_fissures(self, side: Side, box: Box) -> None:
        """The oblique fissure, a hair-thin sheet from the back above to the front below."""
        local = self.canvas.grid.crop(box)
        z, y, _ = local.axes()
        slope = 0.95
        plane = (z / self.frame.sz - (95.0 - slope * y / self.frame.sy)) / np.hypot(1.0, slope)
        plane = plane + 5.0 * smooth_field(self.seed, f"fissure{side.sign}", 60.0, local)
        cover = np.clip(1.0 - np.abs(plane) / self.canvas.edge_mm, 0.0, 1.0) * 0.22
        view = self.canvas.hu[box]
        view += cover * (self.canvas.tissue[box] == side.lung) * (-100.0 - view)

    def _paint_emphysema(self, side: Side, box: Box) -> None:
        fraction = self.frame.options.emphysema_fraction
        local = self.canvas.grid.crop(box)
        tissue = self.canvas.tissue[box]
        view = self.canvas.hu[box]
        seen = self._seen(box)
        parenchyma = tissue == side.lung
        lung = int(np.count_nonzero(parenchyma[seen])) + int(np.count_nonzero(tissue[seen] == side.vessel))
        # Only clean parenchyma takes part: next to a vessel or the pleura a voxel is not all air.
        clean = parenchyma & (view < self.frame.options.lung_hu + 45.0)
        if fraction == 0.0 or not clean[seen].any():
            return
        z = local.axes()[0] / self.frame.sz
        field = smooth_field(self.seed, "emphysema", 6.5, local)
        field += 0.8 * smooth_field(self.seed, "emphysema region", 45.0, local) + z * np.float32(0.004)
        values = np.sort(field[seen][clean[seen]])

        def level(part: float) -> float:
            return float(values[max(values.size - 1 - round(part * lung), 0)])

        part = fraction
        tissue_is_lung = parenchyma | (tissue == side.vessel)
        for _ in range(_CALIBRATIONS if max(self.canvas.blur_mm) > 0.0 else 0):
            part *= fraction / self._seen_fraction(view, field, clean, tissue_is_lung, level(part), part)
            part = min(part, values.size / lung)
        view[clean] = _emphysematous(view, field, level(part))[clean]

    def _seen_fraction(
        self,
        view: Floats,
        field: Floats,
        clean: NDArray[np.bool_],
        lung: NDArray[np.bool_],
        level: float,
        part: float,
    ) -> float:
        """How much emphysema the scanner would show, judged on every fourth run of slices."""
        true, seen = 0, 0
        for first in range(0, view.shape[0], 4 * _RUN):
            run = slice(first, first + _RUN)
            inner = slice(2, -2)
            hu = np.where(clean[run], _emphysematous(view[run], field[run], level), view[run])
            soft = softened(hu, self.canvas.grid, self.canvas.blur_mm)
            true += int(np.count_nonzero((hu[inner] < _THRESHOLD_HU) & lung[run][inner]))
            seen += int(np.count_nonzero((soft[inner] < _THRESHOLD_HU) & lung[run][inner]))
        return part * max(seen, 1) / max(true, 1)

    def _paint_effusion(self, side: Side, box: Box, distance: Floats) -> None:
        """Fluid lies in the lowest part of the pleural space of a patient on the back, with a meniscus."""
        options = self.frame.options
        wanted_ml = options.effusion_left_ml if side.sign > 0 else options.effusion_right_ml
        if wanted_ml <= 0.0:
            return
        local = self.canvas.grid.crop(box)
        z, y, _ = local.axes()
        gravity = y if options.patient_position in {"HFS", "FFS"} else -y
        level_field = gravity - 0.10 * z + 0.22 * np.maximum(distance, -25.0) * -1.0
        seen = self._seen(box)
        # Fluid wets the wall: no line of half-painted lung may stay between them. What is painted is what is counted.
        space = np.asarray(distance - np.float32(1.5), dtype=np.float32)
        values = np.sort(level_field[seen][space[seen] < 0.0])[::-1]
        if values.size == 0:
            return
        count = min(round(wanted_ml / self.canvas.grid.voxel_ml), values.size - 1)
        texture = smooth_field(self.seed, "effusion", 9.0, local)
        fluid = np.asarray(np.maximum(space, values[count] - level_field), dtype=np.float32)
        self.canvas.blend(fluid, box, 12.0 + 2.0 * texture, side.effusion, ~self._bone(box))
