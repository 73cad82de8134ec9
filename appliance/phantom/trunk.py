"""Body wall: skin, subcutaneous fat, layered muscles, arms, and the table underneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.phantom.shapes import ellipsoid, spline, tube
from appliance.phantom.texture import smooth_field
from appliance.phantom.tissues import Tissue

if TYPE_CHECKING:
    from appliance.phantom.canvas import Canvas
    from appliance.phantom.frame import Frame
    from appliance.phantom.grid import Floats


def paint_trunk(canvas: Canvas, frame: Frame) -> None:
    """Paint everything from the skin to the wall of the cavity, and fill the cavity with fat."""
    options = frame.options
    if options.table:
        _paint_table(canvas, frame)
    coarse = canvas.grid.coarse(canvas.coarse_mm)
    ripple = smooth_field(options.seed, "wall", 70.0, coarse)
    box = (slice(0, canvas.grid.shape[0]), slice(0, canvas.grid.shape[1]), slice(0, canvas.grid.shape[2]))
    skin = canvas.distance(lambda z, y, x: frame.skin(z, y, x) + 2.5 * ripple, box)
    if options.sex == "F":
        _add_breasts(canvas, frame, skin)
    _add_arms(canvas, frame, skin)
    canvas.blend(skin, box, 15.0, Tissue.SKIN)
    fat_texture = smooth_field(options.seed, "fat", 7.0, canvas.grid)
    canvas.blend(skin + 1.8, box, options.fat_hu + 4.0 * fat_texture, Tissue.SUBCUTANEOUS_FAT)
    # Septa of connective tissue in the fat: thin sheets where a smooth field passes zero.
    septa = (np.abs(smooth_field(options.seed, "septa", 14.0, canvas.grid)) < 0.035) & (skin < -4.0)
    canvas.hu[septa] += 45.0
    del fat_texture, septa

    wobble = smooth_field(options.seed, "muscle", 28.0, coarse)
    muscle = canvas.distance(lambda z, y, x: frame.muscle(z, y, x) + 1.6 * wobble, box)
    np.maximum(muscle, skin + 4.0, out=muscle)
    cavity = canvas.distance(frame.cavity, box)
    meat = options.muscle_hu + 5.0 * smooth_field(options.seed, "meat", 6.0, canvas.grid)
    canvas.blend(muscle, box, meat, Tissue.MUSCLE)
    _paint_fat_planes(canvas, frame, muscle, cavity)
    inner_fat = options.fat_hu + 4.0 * smooth_field(options.seed, "inner fat", 9.0, canvas.grid)
    canvas.blend(cavity, box, inner_fat, Tissue.VISCERAL_FAT)


def _paint_fat_planes(canvas: Canvas, frame: Frame, muscle: Floats, cavity: Floats) -> None:
    """Thin layers of fat between and within the muscles, in the wall only."""
    options = frame.options
    depth = -muscle / np.maximum(cavity - muscle, 4.0)
    thickness = cavity - muscle
    wall = (cavity > 1.0) & (muscle < -1.5)
    wander = 0.12 * smooth_field(options.seed, "plane", 26.0, canvas.grid)
    planes = np.zeros(canvas.grid.shape, dtype=np.float32)
    sheet = 0.75
    for place in (0.3, 0.64):
        near = np.abs(depth - place - wander) * thickness
        planes = np.maximum(planes, np.clip(1.2 - near / sheet, 0.0, 1.0))
    # Marbling grows where the muscle is thick: the back and the shoulders.
    marbling = np.abs(smooth_field(options.seed, "marbling", 11.0, canvas.grid) + wander)
    streak = np.clip(1.0 - marbling / 0.16, 0.0, 1.0) * np.clip((thickness - 16.0) / 14.0, 0.0, 0.9)
    planes = np.maximum(planes, streak) * wall
    canvas.hu += planes * (options.fat_hu + 15.0 - canvas.hu)
    canvas.tissue[planes > 0.5] = Tissue.INTERMUSCULAR_FAT  # half a voxel


def _add_breasts(canvas: Canvas, frame: Frame, skin: Floats) -> None:
    for side in (-1.0, 1.0):
        centre = frame.point(75.0, -118.0, 78.0 * side)
        radii = (62.0, 38.0, 58.0)
        box = canvas.grid.slices(
            (centre[0] - 70, centre[1] - 50, centre[2] - 70), (centre[0] + 70, centre[1] + 50, centre[2] + 70)
        )
        if box is None:
            continue

        def shape(z: Floats, y: Floats, x: Floats, c: tuple[float, float, float] = centre) -> Floats:
            return ellipsoid(z, y, x, c, radii)

        view = skin[box]
        np.minimum(view, canvas.distance(shape, box), out=view)


def arm_paths(frame: Frame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each arm the course of its flesh (with radius) and of its bone."""
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
        arms.append((spline(course, 12.0), course))
    return arms


def _add_arms(canvas: Canvas, frame: Frame, skin: Floats) -> None:
    for flesh, _ in arm_paths(frame):
        found = canvas.tube_distance(tube(flesh), 30.0)
        if found is None:
            continue
        box, distance = found
        view = skin[box]
        h = np.clip(0.5 + 0.5 * (distance - view) / 14.0, 0.0, 1.0)
        np.copyto(view, distance + (view - distance) * h - 14.0 * h * (1.0 - h))


def paint_arms(canvas: Canvas, frame: Frame) -> None:
    """Paint the muscle inside the arms; the fat around it is already there."""
    rind = 0.35 * frame.options.subcutaneous_fat_mm + 4.0
    for flesh, _ in arm_paths(frame):
        thinner = flesh.copy()
        thinner[:, 3] = np.maximum(thinner[:, 3] - rind, 14.0)
        canvas.paint_tubes(tube(thinner), frame.options.muscle_hu, Tissue.MUSCLE)


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
