"""Paints the whole patient, organ by organ, in the order in which one covers another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.phantom.abdomen import AbdomenPainter
from appliance.phantom.canvas import Canvas
from appliance.phantom.frame import Frame
from appliance.phantom.lungs import LungPainter
from appliance.phantom.mediastinum import Mediastinum
from appliance.phantom.skeleton import SkeletonPainter
from appliance.phantom.trunk import paint_arms, paint_trunk

if TYPE_CHECKING:
    from appliance.phantom.grid import Grid
    from appliance.phantom.options import PhantomOptions


def paint_patient(options: PhantomOptions, grid: Grid, blur_mm: tuple[float, float] = (0.0, 0.0)) -> Canvas:
    """Paint the patient without noise; edges are soft over one voxel of the grid.

    Parameters
    ----------
    options
        The patient.
    grid
        Where to paint.
    blur_mm
        What the scanner will add, along the body and in plane; zero when the painting itself is the image.
    """
    canvas = Canvas(grid, options.coverage_mm, blur_mm)
    frame = Frame(options)
    mediastinum = Mediastinum(frame)
    abdomen = AbdomenPainter(canvas, frame)
    paint_trunk(canvas, frame)
    paint_arms(canvas, frame)
    abdomen.paint()
    mediastinum.paint(canvas)
    SkeletonPainter(canvas, frame).paint()
    LungPainter(canvas, frame, mediastinum).paint()
    abdomen.paint_stone()
    return canvas
