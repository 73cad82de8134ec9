"""The line through the middle of an elongated mask: a shortest path within it that is cheaper far from its border."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.native import signed_distance_mm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.anatomy.organ_map import OrganMap

#: Distance between points of a line, mm.
STEP_MM = 3.0


def bridged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close gaps of up to two voxels, which networks leave where a vessel's border is faint."""
    from scipy import ndimage

    # padded, so that what the scan cuts off is not eroded at the map's border
    closed = ndimage.binary_closing(np.pad(mask, 2, mode="edge"), np.ones((3, 3, 3)))
    result: NDArray[np.bool_] = mask | closed[2:-2, 2:-2, 2:-2]
    return result


def pieces(mask: NDArray[np.bool_], least_voxels: float) -> list[NDArray[np.bool_]]:
    """Return the connected parts of a mask that have at least so many voxels, as masks of the whole map."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    return [labels == number for number in range(1, count + 1) if sizes[number] >= least_voxels]


def middle_line(mask: NDArray[np.bool_], organs: OrganMap) -> NDArray[np.float64]:
    """Return the line through the middle of an elongated mask, lowest end first: LPS mm, every ``STEP_MM``, ``(n, 3)``.

    The two ends are the lowest voxel and the one farthest from it within the mask.
    """
    graph = MaskGraph(mask, organs)
    lowest = int(np.argmin(graph.index[:, 0]))
    steps_mm, _ = graph.paths(lowest, middle=False)
    far = int(np.argmax(np.where(np.isfinite(steps_mm), steps_mm, -1.0)))
    return graph.line(graph.path(lowest, far))


class MaskGraph:
    """A mask's voxels with their neighbours, for shortest paths within it.

    Parameters
    ----------
    mask
        Boolean, shape of the map.
    organs
        The map.
    """

    def __init__(self, mask: NDArray[np.bool_], organs: OrganMap) -> None:
        corner, crop = crop_mask(mask, margin=1)
        self.organs = organs
        self.depth_mm = -signed_distance_mm(crop, organs.spacing_mm)[crop].astype(np.float64)
        self.index: NDArray[np.intp] = np.argwhere(crop) + corner
        self._edges = self._neighbours(crop)

    def _neighbours(self, crop: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        number = np.full(crop.shape, -1, dtype=np.intp)
        number[crop] = np.arange(len(self.index))
        starts, ends, lengths = [], [], []
        for dz, dy, dx in _HALF_OF_26:
            # the margin of one voxel keeps the roll from wrapping around
            other = np.roll(number, (-dz, -dy, -dx), axis=(0, 1, 2))
            both = (number >= 0) & (other >= 0)
            starts.append(number[both])
            ends.append(other[both])
            length = float(np.linalg.norm(np.array([dz, dy, dx]) * self.organs.spacing_mm))
            lengths.append(np.full(int(np.count_nonzero(both)), length))
        return np.concatenate(starts), np.concatenate(ends), np.concatenate(lengths)

    def paths(self, start: int, *, middle: bool) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Length of the shortest path to every voxel and the voxel before it; cheaper in the middle when asked."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import dijkstra

        starts, ends, lengths = self._edges
        cost = lengths
        if middle:
            depth = 0.5 * (self.depth_mm[starts] + self.depth_mm[ends])
            cost = lengths * (float(self.depth_mm.max()) / np.maximum(depth, 0.5)) ** 2
        size = len(self.index)
        graph = coo_matrix((cost, (starts, ends)), shape=(size, size)).tocsr()
        distance, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        return distance, before

    def path(self, start: int, end: int, before: NDArray[np.int32] | None = None) -> list[int]:
        """Return the voxels from one to another through the middle, by their number."""
        before = self.paths(start, middle=True)[1] if before is None else before
        path = [end]
        while path[-1] != start and before[path[-1]] >= 0:
            path.append(int(before[path[-1]]))
        return path[::-1]

    def line(self, path: list[int]) -> NDArray[np.float64]:
        """Smooth a path and cut a radius off its ends, which lie in corners of the mask; LPS mm, every ``STEP_MM``."""
        line = self.index[path] @ self.organs.affine[:3, :3].T + self.organs.affine[:3, 3]
        radius = round(float(np.median(self.depth_mm[path]) / np.mean(self.organs.spacing_mm)))
        trim = min(radius, max(0, (len(line) - 6) // 2))
        return smooth(even(line[trim : len(line) - trim], STEP_MM), 2.5)


_HALF_OF_26 = [(dz, dy, dx) for dz in (0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dz, dy, dx) > (0, 0, 0)]


def crop_mask(mask: NDArray[np.bool_], margin: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Cut a mask's surroundings out, padded with nothing where they reach beyond the map; with its first index."""
    where = np.argwhere(mask)
    low, high = where.min(axis=0) - margin, where.max(axis=0) + margin + 1
    crop = np.zeros(high - low, dtype=bool)
    crop[tuple((where - low).T)] = True
    return low, crop


def even(line: NDArray[np.float64], step_mm: float) -> NDArray[np.float64]:
    """Resample a line at equal steps along it."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    places = np.arange(0.0, along[-1] + 1e-6, step_mm)
    return np.column_stack([np.interp(places, along, line[:, axis]) for axis in range(3)])


def smooth(line: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian along a line, in points; the ends go straight on."""
    from scipy import ndimage

    reach = min(int(np.ceil(3 * sigma)), len(line) - 1)
    if reach < 1:
        return line
    before = 2 * line[0] - line[reach:0:-1]
    after = 2 * line[-1] - line[-2 : -reach - 2 : -1]
    padded = ndimage.gaussian_filter1d(np.vstack([before, line, after]), sigma, axis=0, mode="nearest")
    inner: NDArray[np.float64] = padded[reach : reach + len(line)]
    return inner
