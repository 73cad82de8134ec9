"""Body wall: skin, subcutaneous fat, layered muscles, arms, and the table underneath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.grid import interpolated
from appliance.phantom.shapes import ellipsoid, smooth_union, spline, tube
from appliance.phantom.texture import random_field, smooth_field
from appliance.phantom.tissues import Tissue

if TYPE_CHECKING:
    from appliance.phantom.canvas import Canvas
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats, Vector


def paint_trunk(canvas: Canvas, frame: Frame) -> None:
    """Paint everything from the skin to the wall of the cavity, and fill the cavity with fat."""
    options = frame.options
    seed = options.seed
    if options.table:
        _paint_table(canvas, frame)
    grid = canvas.grid
    coarse = grid.coarse(canvas.coarse_mm)
    ripple = smooth_field(seed, "wall", 70.0, coarse)
    wobble = smooth_field(seed, "muscle", 28.0, coarse)
    wander = 0.14 * smooth_field(seed, "plane", 30.0, coarse)
    strength = np.clip(0.45 + 0.55 * smooth_field(seed, "plane strength", 34.0, coarse), 0.0, 1.0)
    z, y, x = coarse.axes()
    skin_shape = frame.skin(z, y, x) + 2.5 * ripple
    if options.sex == "F":
        skin_shape = _with_breasts(frame, skin_shape, (z, y, x))
    for path in arm_paths(frame):
        skin_shape = smooth_union(_tube_distance(path, (z, y, x)), skin_shape, 14.0)
    skin_field = interpolated(skin_shape, coarse, grid, "cubic")
    muscle_field = interpolated(frame.muscle(z, y, x) + 1.6 * wobble, coarse, grid, "cubic")
    cavity_field = interpolated(np.broadcast_to(frame.cavity(z, y, x), coarse.shape), coarse, grid, "cubic")
    wander_field = interpolated(wander, coarse, grid, "cubic")
    strength_field = interpolated(strength, coarse, grid, "linear")
    grain_field = random_field(seed, "grain", 7.0, grid)
    sheet_field = random_field(seed, "septa", 12.0, grid)
    for local, part in canvas.slabs():
        layers = _Layers(skin_field.slab(local), muscle_field.slab(local), cavity_field.slab(local))
        np.maximum(layers.muscle, layers.skin + np.float32(4.0), out=layers.muscle)
        grain = grain_field.slab(local)
        sheet = np.abs(sheet_field.slab(local))
        canvas.blend(layers.skin, part, 15.0, Tissue.SKIN)
        # Septa of connective tissue in the fat: thin sheets where a smooth field passes zero.
        fat = options.fat_hu + 4.0 * grain
        canvas.blend(layers.skin + 1.8, part, fat + 45.0 * (sheet < 0.035), Tissue.SUBCUTANEOUS_FAT)
        canvas.blend(layers.muscle, part, options.muscle_hu + 5.0 * grain, Tissue.MUSCLE)
        planes = _fat_planes(layers, sheet, wander_field.slab(local), strength_field.slab(local))
        view = canvas.hu[part]
        view += planes * (options.fat_hu + 15.0 - view)
        canvas.tissue[part][planes > 0.5] = Tissue.INTERMUSCULAR_FAT  # half a voxel
        canvas.blend(layers.cavity, part, fat, Tissue.VISCERAL_FAT)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Distances to the wall's surfaces on one slab."""

    skin: Floats
    muscle: Floats
    cavity: Floats


def _fat_planes(layers: _Layers, sheet: Floats, wander: Floats, strength: Floats) -> Floats:
    """Thin layers of fat between and within the muscles, in the wall only; 0 … 1."""
    thickness = layers.cavity - layers.muscle
    depth = -layers.muscle / np.maximum(thickness, 4.0) - wander
    planes = np.zeros_like(depth)
    for place, half_mm in ((0.3, 0.3), (0.64, 0.6)):
        np.maximum(planes, 1.3 + half_mm - np.abs(depth - place) * thickness, out=planes)
    np.clip(planes, 0.0, 0.9, out=planes)
    planes *= strength
    # Marbling grows where the muscle is thick: the back and the shoulders. Its streaks are faint.
    streak = (1.0 - np.abs(sheet + wander) * (1.0 / 0.1)) * np.clip((thickness - 24.0) / 20.0, 0.0, 0.4)
    np.maximum(planes, streak, out=planes)
    planes *= (layers.cavity > 1.0) & (layers.muscle < -1.5)  # keeps off the surfaces, mm
    return np.asarray(planes, dtype=np.float32)


def _with_breasts(frame: Frame, skin: Floats, axes: tuple[Floats, Floats, Floats]) -> Floats:
    for side in (-1.0, 1.0):
        centre = frame.point(72.0, -96.0, 76.0 * side)
        radii = (66.0, 34.0 + 0.9 * frame.options.subcutaneous_fat_mm, 66.0)
        skin = smooth_union(ellipsoid(*axes, centre, radii, (side * 16.0, 0.0, 0.0)), skin, 26.0)
    return skin


def _tube_distance(path: np.ndarray, axes: tuple[Floats, Floats, Floats]) -> Floats:
    """Distance to balls along a course; close enough on the coarse grid."""
    z, y, x = axes
    near = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), 1e3, dtype=np.float32)
    for row in np.asarray(path, dtype=np.float32):
        np.minimum(near, np.sqrt((z - row[0]) ** 2 + (y - row[1]) ** 2 + (x - row[2]) ** 2) - row[3], out=near)
    return near


def arm_paths(frame: Frame) -> list[np.ndarray]:
    """Return the course of each arm, ``(n, 4)``: z, y, x and radius of the flesh, mm; the right arm first."""
    arms = []
    for side in (-1.0, 1.0):
        if frame.options.arms_down:
            flesh = [(205, 10, 160, 52), (150, 18, 198, 47), (40, 25, 214, 44), (-60, 25, 218, 40), (-200, 5, 222, 36),
                     (-330, -10, 225, 30)]  # fmt: skip
        else:
            flesh = [
                (190, 14, 140, 58),
                (222, 10, 160, 56),
                (262, -6, 172, 50),
                (330, -30, 178, 45),
                (400, -45, 170, 40),
            ]
        course = np.array([(*frame.point(p[0], p[1], p[2] * side), p[3]) for p in flesh])
        arms.append(spline(course, 10.0))
    return arms


def paint_arms(canvas: Canvas, frame: Frame) -> None:
    """Paint the muscle inside the arms and the fat of the armpits; the fat around is already there."""
    options = frame.options
    rind = 0.35 * options.subcutaneous_fat_mm + 4.0
    for side, flesh in zip((-1.0, 1.0), arm_paths(frame), strict=True):
        thinner = flesh[len(flesh) // 4 :].copy()
        thinner[:, 3] = np.maximum(thinner[:, 3] - rind, 14.0)
        found = canvas.tube_distance(tube(thinner), 2.0 * canvas.edge_mm)
        if found is not None:
            texture = 5.0 * smooth_field(options.seed, "arm", 7.0, canvas.grid.crop(found[0]))
            canvas.blend(found[1], found[0], options.muscle_hu + texture, Tissue.MUSCLE)
        middle = frame.point(172.0, 6.0, 148.0 * side)
        radii = (42.0, 26.0, 15.0)

        def pit(z: Floats, y: Floats, x: Floats, c: Vector = middle, r: Vector = radii, s: float = side) -> Floats:
            hollow = ellipsoid(z, y, x, c, r, (0.0, s * 12.0, 0.0))
            return np.asarray(np.maximum(hollow, 9.0 - frame.cavity(z, y, x)), dtype=np.float32)

        canvas.paint_around(pit, middle, 52.0, options.fat_hu, Tissue.INTERMUSCULAR_FAT)
        vessels = [(*frame.point(150.0, 2.0, 142.0 * side), 3.0), (*frame.point(200.0, 0.0, 150.0 * side), 3.4)]
        canvas.paint_tubes(tube(np.array(vessels)), options.blood_hu, Tissue.VESSEL)


def table_surface_y(frame: Frame) -> float:
    """Return y of the table's top in the midline, mm: just behind the deepest point of the back."""
    z = np.linspace(-200.0, 200.0, 81, dtype=np.float32) * np.float32(frame.sz)
    return float(frame.skin_outline(z)[1].max()) - 3.0


def _paint_table(canvas: Canvas, frame: Frame) -> None:
    """A curved couch: a thin shell of carbon fibre around foam, the same in every slice, under whoever lies on it."""
    prone = frame.options.patient_position in {"HFP", "FFP"}
    top = table_surface_y(frame)
    _, y, x = canvas.grid.axes()
    if prone:
        y, top = -y, 3.0 - float(frame.skin_outline(canvas.grid.axis(0))[0].min())
    sag = top + 6.0 - x * x / 1500.0
    outer = np.maximum(np.maximum(sag - y, y - sag - 32.0 + x * x / 5000.0), np.abs(x) - 215.0)[0]
    shell = np.clip(0.5 - outer / canvas.edge_mm, 0.0, 1.0)
    core = np.clip(0.5 - (outer + 2.2) / canvas.edge_mm, 0.0, 1.0)
    slab = -1000.0 + shell * 780.0
    slab += core * (-945.0 - slab)
    canvas.hu += (slab + 1000.0)[None]
    canvas.tissue[:, shell > 0.5] = Tissue.TABLE  # half a voxel
