"""Muscle and fat in the plane through the middle of L3, where one slice stands for the whole body.

The densities are those of the Alberta protocol (Mitsiopoulos et al., J Appl Physiol 1998;85:115-22, for muscle).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.abdominal_wall import FAT_HU, GAS_HU, MUSCLE_HU, PIXEL_MM, find_wall, pixel
from appliance.anatomy.derived import derived
from appliance.anatomy.spine import spine
from appliance.anatomy.spine_curve import OUTSIDE_HU, sampled, sampled_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.abdominal_wall import Wall
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.anatomy.spine import Vertebra

#: Planes that are averaged, mm above and below the middle of L3.
_PLANES_MM = (-1.0, 0.0, 1.0)
#: Half width of the spinal canal, mm.
_CANAL_MM = 10.5
#: How far the psoas is followed before the vertebral body, mm; and to the side, with the quadratus, in half widths.
_PSOAS_BEFORE_MM, _PSOAS_WIDTHS, _QUADRATUS_WIDTHS = 0.0, 2.7, 3.6
#: Half-filled pixels between air and skin, mm.
_SKIN_MM = 0.8
#: Length of skin along which the end of the image may touch the body, mm.
_TOUCHING_MM = 60.0
#: Organs that a map may hold; what is theirs is no muscle.
_ORGANS = (
    *("liver", "spleen", "kidney_left", "kidney_right", "stomach", "gallbladder", "pancreas", "aorta", "duodenum"),
    *("small_bowel", "colon", "inferior_vena_cava", "urinary_bladder", "adrenal_gland_left", "adrenal_gland_right"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Compartments:
    """Tissues in one plane across the patient.

    Attributes
    ----------
    z_mm
        Height of the plane in the patient, LPS.
    origin_mm
        LPS x and y of the middle of the first pixel; rows grow backwards, columns to the patient's left.
    body, muscle, subcutaneous_fat, visceral_fat, intermuscular_fat
        Boolean, one pixel each ``PIXEL_MM`` wide.
    hu
        Density of the plane, mean over a few mm.
    cut
        Whether the field of view cuts the body here.
    """

    z_mm: float
    origin_mm: tuple[float, float]
    hu: NDArray[np.float32]
    body: NDArray[np.bool_]
    muscle: NDArray[np.bool_]
    subcutaneous_fat: NDArray[np.bool_]
    visceral_fat: NDArray[np.bool_]
    intermuscular_fat: NDArray[np.bool_]
    cut: bool

    def area_cm2(self, mask: NDArray[np.bool_]) -> float:
        """Area of a mask of this plane, cm²."""
        return float(np.count_nonzero(mask)) * PIXEL_MM**2 / 100.0


@derived
def compartments(anatomy: Anatomy) -> Compartments | None:
    """Tell tissues apart at the middle of L3; ``None`` where L3 or the body around it is not seen."""
    level = spine(anatomy).level("L3")
    if level is None or "body" not in anatomy.organs.structures:
        return None
    plane = _plane(anatomy, level)
    if plane is None:
        return None
    hu, places, origin = plane
    layer = _labels_of(anatomy, places)
    body, cut = _body(anatomy, hu, places, level, origin, layer)
    if np.count_nonzero(body) * PIXEL_MM**2 < 10000.0:  # mm², less than any trunk
        return None
    organs = _map(layer, *_ORGANS)
    bone = _bone(hu, layer, level, origin)
    wall = find_wall(hu, body, organs, bone, level, origin)
    muscle, subcutaneous, visceral, intermuscular = _told_apart(hu, body, organs, bone, wall, level, origin)
    z = float(level.centre_mm[2])
    return Compartments(z, origin, hu, body, muscle, subcutaneous, visceral, intermuscular, cut)


def _plane(
    anatomy: Anatomy, level: Vertebra
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, float]] | None:
    """Densities, positions and first pixel of the plane, wide enough for the map's body and a rim of air."""
    organs = anatomy.organs
    inverse = np.linalg.inv(organs.affine)
    layer = round(float(inverse[0, :3] @ level.centre_mm + inverse[0, 3]))
    if not 0 <= layer < organs.labels.shape[0]:
        return None
    filled = np.argwhere(organs.labels[layer] > 0)
    if not len(filled):
        return None
    index = np.array([[layer, *filled.min(axis=0)], [layer, *filled.max(axis=0)]], dtype=np.float64)
    low, high = np.sort(index @ organs.affine[:3, :3].T + organs.affine[:3, 3], axis=0)
    rim = 12.0
    x = np.arange(low[0] - rim, high[0] + rim, PIXEL_MM)
    y = np.arange(low[1] - rim, high[1] + rim, PIXEL_MM)
    rows, columns = np.meshgrid(y, x, indexing="ij")
    places = np.stack([columns, rows, np.full_like(rows, level.centre_mm[2])], axis=-1)
    total = np.zeros(rows.shape, dtype=np.float32)
    for offset in _PLANES_MM:
        total += sampled(anatomy.volume, places + np.array([0.0, 0.0, offset]))
    return np.asarray(total / len(_PLANES_MM), dtype=np.float32), places, (float(x[0]), float(y[0]))


def _body(
    anatomy: Anatomy,
    hu: NDArray[np.float32],
    places: NDArray[np.float64],
    level: Vertebra,
    origin: tuple[float, float],
    layer: OrganMap,
) -> tuple[NDArray[np.bool_], bool]:
    """The trunk without arms and table, and whether the field of view cuts it."""
    from scipy import ndimage

    near = ndimage.binary_dilation(layer.labels[0] > 0, iterations=4)
    solid = (hu > -500.0) & near
    solid = ndimage.binary_fill_holes(ndimage.binary_opening(solid, iterations=2))
    # an arm that lies against the trunk hangs on by a bridge narrower than the trunk
    distance = ndimage.distance_transform_edt(solid) * PIXEL_MM
    row, column = pixel(level.centre_mm, origin)
    body = _part_with(solid, row, column)
    core = _part_with(distance > 22.0, row, column)
    away = ndimage.distance_transform_edt(~core) * PIXEL_MM
    body &= away < 30.0
    outside = (hu < OUTSIDE_HU / 8.0 - 600.0) | _padded(anatomy, places)
    # a crop that just touches the skin takes nothing away
    touching = body & ~ndimage.binary_erosion(body) & ndimage.binary_dilation(outside)
    return body, bool(np.count_nonzero(touching) * PIXEL_MM > _TOUCHING_MM)


def _part_with(mask: NDArray[np.bool_], row: float, column: float) -> NDArray[np.bool_]:
    """The part of a mask that holds a pixel, or else the largest."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if not count:
        return mask
    here = parts[min(max(round(row), 0), mask.shape[0] - 1), min(max(round(column), 0), mask.shape[1] - 1)]
    chosen = here or int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    found: NDArray[np.bool_] = parts == chosen
    return found


def _padded(anatomy: Anatomy, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a scanner that reconstructs a circle wrote no image: beyond it, when the corners hold one value."""
    volume = anatomy.volume
    index = volume.to_index(places)
    middle = min(max(round(float(index[..., 0].mean())), 0), volume.shape[0] - 1)
    plane = volume.hu[middle]
    ends = (slice(4), slice(-4, None))
    corners = np.concatenate([plane[rows, columns].ravel() for rows in ends for columns in ends])
    if corners.min() != corners.max() or volume.shape[1] != volume.shape[2]:
        return np.zeros(places.shape[:2], dtype=bool)
    radius = np.zeros(places.shape[:2])
    for axis in (1, 2):
        half = 0.5 * (volume.shape[axis] - 1)
        radius += ((index[..., axis] - half) / half) ** 2
    beyond: NDArray[np.bool_] = radius > 0.985**2
    return beyond


def _labels_of(anatomy: Anatomy, places: NDArray[np.float64]) -> OrganMap:
    """The organ map in the plane: one layer, nearest voxels."""
    organs = anatomy.organs
    return replace(organs, labels=sampled_labels(organs.labels, organs, places)[None])


def _map(layer: OrganMap, *names: str) -> NDArray[np.bool_]:
    """Those of the structures that the map holds, in the plane."""
    known = [name for name in names if name in layer.structures]
    return layer.mask(*known)[0] if known else np.zeros(layer.labels.shape[1:], dtype=bool)


def _bone(hu: NDArray[np.float32], layer: OrganMap, level: Vertebra, origin: tuple[float, float]) -> NDArray[np.bool_]:
    """Bone with its marrow and the spinal canal."""
    from scipy import ndimage

    mapped = ndimage.binary_dilation(_map(layer, "bone", "vertebral_bodies"), iterations=2)
    bone = (mapped & (hu > 110.0)) | (hu > 250.0) | _map(layer, "vertebral_bodies")
    bone = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(bone, 8), iterations=3)[8:-8, 8:-8])
    # the canal is open to the sides; it holds fat and nerves, no muscle
    row, column = pixel(level.centre_mm + (level.half_depth_mm + _CANAL_MM) * level.back, origin)
    rows, columns = np.indices(hu.shape, dtype=np.float32)
    canal: NDArray[np.bool_] = np.hypot(rows - row, columns - column) * PIXEL_MM < _CANAL_MM
    return np.asarray(bone | canal)


# --- tissues ------------------------------------------------------------------------------------------------------


def _told_apart(
    hu: NDArray[np.float32],
    body: NDArray[np.bool_],
    organs: NDArray[np.bool_],
    bone: NDArray[np.bool_],
    wall: Wall,
    level: Vertebra,
    origin: tuple[float, float],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Muscle, and fat under the skin, inside the cavity, and between the muscles."""
    from scipy import ndimage

    rim = round(_SKIN_MM / PIXEL_MM)
    trunk = ndimage.binary_erosion(body, iterations=rim) & ~bone
    fat = (hu >= FAT_HU[0]) & (hu <= FAT_HU[1]) & trunk
    # between gas and bowel's wall a pixel may read like fat
    fat &= ~ndimage.binary_dilation((hu < GAS_HU) & body, iterations=2)
    lean = (hu > MUSCLE_HU[0]) & (hu <= MUSCLE_HU[1]) & trunk & ~organs
    inside_fat = fat & wall.cavity & ~organs
    # behind the kidneys the cavity reaches as far back as its fat does; seams between muscles are thinner
    thick = ndimage.binary_opening(fat & wall.within, iterations=round(2.4 / PIXEL_MM))
    thick = ndimage.binary_propagation(inside_fat & thick, mask=thick)
    inside_fat |= fat & wall.within & ndimage.binary_dilation(thick, iterations=2) & ~wall.front
    muscle = lean & wall.within & (~wall.cavity | _beside_spine(lean & wall.cavity, wall, level, origin))
    return muscle, fat & ~wall.within, inside_fat, fat & wall.within & ~wall.cavity & ~inside_fat


def _beside_spine(
    lean: NDArray[np.bool_], wall: Wall, level: Vertebra, origin: tuple[float, float]
) -> NDArray[np.bool_]:
    """Psoas and quadratus lumborum: beside the vertebra, not before it, and thicker than a vessel."""
    from scipy import ndimage

    row, column = pixel(level.centre_mm, origin)
    depth, width = level.half_depth_mm / PIXEL_MM, level.half_width_mm / PIXEL_MM
    rows, columns = np.indices(lean.shape, dtype=np.float32)
    aside = np.abs(columns - column)
    zone = (rows > row - depth - _PSOAS_BEFORE_MM / PIXEL_MM) & (aside < _PSOAS_WIDTHS * width)
    behind = (rows > row) & (aside < _QUADRATUS_WIDTHS * width)
    steps = round(3.2 / PIXEL_MM)
    thick = ndimage.binary_opening(lean & (zone | behind), iterations=steps)
    seeds = thick & (rows > row - depth) & (rows < row + depth) & (aside < width + 14.0 / PIXEL_MM) & (aside > width)
    psoas = ndimage.binary_propagation(seeds, mask=thick & zone)
    square = behind & ndimage.binary_dilation(wall.within & ~wall.cavity, iterations=round(9.0 / PIXEL_MM))
    return np.asarray(lean & ((ndimage.binary_dilation(psoas, iterations=2) & zone) | square))
