"""The key image is in the patient's orientation, shows what was counted, and says what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from appliance.results.key_image import write_key_image
from appliance.scan import Scan, Volume
from appliance.screenings.contract import Evidence

SIZE = 64


def scan_with_bright_corner(affine: np.ndarray, corner_mm: tuple[float, float]) -> Scan:
    """A slice that is dark but for a block near the given left/posterior position."""
    hu = np.full((3, SIZE, SIZE), -1000, dtype=np.int16)
    volume = Volume(hu, affine)
    index = volume.to_index(np.array([*corner_mm, 0.0]))
    row, column = round(index[1]), round(index[2])
    hu = hu.copy()
    hu[1, max(0, row - 6) : row + 7, max(0, column - 6) : column + 7] = 1000
    return Scan(Volume(hu, affine))


def white_of(path) -> np.ndarray:
    """Where the slice itself is white; the letters are yellow and have no blue."""
    return np.asarray(Image.open(path))[:768, :, 2] > 200


def affine_of(row_direction, column_direction) -> np.ndarray:
    """Affine of a 1 mm axial grid centred on the origin; rows and columns step along the given L/P directions."""
    affine = np.eye(4)
    affine[:3, 0] = [0, 0, 1]
    affine[:3, 1] = [*row_direction, 0]
    affine[:3, 2] = [*column_direction, 0]
    affine[:3, 3] = -(SIZE - 1) / 2 * (affine[:3, 1] + affine[:3, 2]) + [0, 0, -1]
    return affine


@pytest.mark.parametrize(
    ("row_direction", "column_direction"),
    [((0, 1), (1, 0)), ((0, -1), (1, 0)), ((0, 1), (-1, 0)), ((1, 0), (0, 1)), ((-1, 0), (0, -1))],
)
def test_the_patient_s_left_front_is_at_the_picture_s_upper_right(tmp_path, row_direction, column_direction):
    scan = scan_with_bright_corner(affine_of(row_direction, column_direction), (20.0, -20.0))  # left, anterior
    evidence = Evidence(1, np.zeros((SIZE, SIZE), bool), None, (-1000.0, 1000.0), ("a number",))
    write_key_image(tmp_path / "key.png", scan, "Title", evidence)
    picture = white_of(tmp_path / "key.png")
    bright = np.argwhere(picture)
    assert bright[:, 0].mean() < picture.shape[0] / 2
    assert bright[:, 1].mean() > picture.shape[1] / 2


def test_what_was_counted_is_red(tmp_path):
    scan = scan_with_bright_corner(affine_of((0, 1), (1, 0)), (0.0, 0.0))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:20, 10:20] = True
    write_key_image(tmp_path / "key.png", scan, "Title", Evidence(1, mask, mask, (-1000.0, 1000.0), ()))
    picture = np.asarray(Image.open(tmp_path / "key.png")).astype(int)
    assert ((picture[..., 0] - picture[..., 2]) > 80).sum() > 1000


def test_a_picture_of_unequal_pixels_keeps_the_patient_s_proportions(tmp_path):
    affine = affine_of((0, 1), (1, 0))
    affine[:3, 2] *= 0.5
    scan = replace(scan_with_bright_corner(affine_of((0, 1), (1, 0)), (0.0, 0.0)))
    scan = Scan(Volume(scan.volume.hu.copy(), affine))
    evidence = Evidence(1, np.zeros((SIZE, SIZE), bool), None, (-1000.0, 1000.0), ())
    write_key_image(tmp_path / "key.png", scan, "Title", evidence)
    picture = white_of(tmp_path / "key.png")
    bright = np.argwhere(picture)
    height, width = np.ptp(bright, axis=0)
    assert width == pytest.approx(height / 2, rel=0.2)


AXES = [np.eye(3), -np.eye(3), np.eye(3)[[0, 2, 1]], np.eye(3)[[1, 0, 2]], np.diag([1, -1, 1])]


@pytest.mark.parametrize("directions", AXES)
@pytest.mark.parametrize("anatomical", ["coronal", "sagittal"])
def test_the_head_is_up_whatever_the_volume_s_axes(tmp_path, directions, anatomical):
    """A block at the front, left and top of the patient, and a stroke ending on it, in the plane through its middle."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ directions
    affine[:3, 3] = -(SIZE - 1) / 2 * affine[:3, :3].sum(axis=1)
    hu = np.full((SIZE, SIZE, SIZE), -1000, dtype=np.int16)
    target = np.array([20.0, -20.0, 20.0])  # left, front, head
    middle = Volume(hu, affine).to_index(target)
    index = np.rint(middle).astype(int)
    hu = hu.copy()
    hu[tuple(slice(at - 6, at + 7) for at in index)] = 1000
    scan = Scan(Volume(hu, affine))
    across = {"coronal": 1, "sagittal": 0}[anatomical]
    axis = int(np.argmax(np.abs(affine[across, :3])))
    in_plane = np.delete(middle, axis)
    stroke = ((31.5, 31.5), (float(in_plane[0]), float(in_plane[1])))
    mask = np.zeros((SIZE, SIZE), bool)
    evidence = Evidence(int(index[axis]), mask, None, (-1000.0, 1000.0), ("a number",), axis=axis, strokes=(stroke,))
    write_key_image(tmp_path / "key.png", scan, "Title", evidence)
    bright = np.argwhere(white_of(tmp_path / "key.png"))
    assert bright[:, 0].mean() < 768 / 2
    assert (bright[:, 1].mean() > 768 / 2) == (anatomical == "coronal")  # left is right; the front is left
    pixels = np.asarray(Image.open(tmp_path / "key.png"))[:768]
    yellow = np.argwhere((pixels == (255, 225, 64)).all(axis=2))
    corner = yellow[np.argmin(yellow[:, 0])]
    assert np.abs(corner - bright.mean(axis=0)).max() < 20
