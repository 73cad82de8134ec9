"""The two scans that came with organ labels, as answers of yes, no and "do not know" for every structure.

python sources.py ../../../../shared/data WORK/abdomen
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prepare import SPACING_MM
from scans import read_all
from scipy import ndimage

from appliance.inference.resample import canonical_grid, resample_to

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scans import RawScan

    Answers = dict[str, NDArray[np.uint8]]

NO, YES, UNKNOWN = 0, 1, 255

#: Values in the TotalSegmentator example's own label map.
_MODEL = {
    "liver": (5,),
    "spleen": (1,),
    "kidney_left": (3,),
    "kidney_right": (2,),
    "aorta": (52,),
}
#: Values in the atlas's; kidneys with their pelvis, the liver with its veins.
_ATLAS = {
    "liver": (3, 151, 152, 153),
    "spleen": (4,),
    "kidney_left": (52, 146),
    "kidney_right": (51, 145),
    "aorta": (7,),
}
_MODEL_VERTEBRAE, _MODEL_CORD = range(27, 51), 79
_ATLAS_VERTEBRAE, _ATLAS_DISCS = range(409, 506), range(551, 560)


def _coarse(scan: RawScan, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *scan.spacing_mm, 1.0
    return resample_to(wanted, canonical_grid(wanted.shape, affine, SPACING_MM))


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Yes inside, no outside, unknown one voxel to the outer side."""
    answer = np.where(ndimage.binary_dilation(mask), UNKNOWN, NO).astype(np.uint8)
    answer[mask] = YES
    return answer


def _bodies(vertebrae: NDArray[np.bool_], back_row: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Part the bodies from the arches at the back wall, whose row each slice knows (NaN where it does not)."""
    rows = np.arange(vertebrae.shape[1])[None, :, None]
    wall = back_row[:, None, None]
    answer = np.where(vertebrae, UNKNOWN, NO).astype(np.uint8)
    answer[vertebrae & (rows < wall - 1)] = YES
    answer[vertebrae & (rows > wall + 1)] = NO
    # Endplates and spurs between two bodies carry neither's label.
    between = ndimage.binary_closing(answer == YES, np.ones((7, 1, 1), bool)) & (answer == NO)
    answer[ndimage.binary_dilation(between, np.ones((1, 3, 3), bool)) & (answer == NO)] = UNKNOWN
    return answer


def _interpolated(rows: list[float]) -> NDArray[np.float64]:
    known = ~np.isnan(rows)
    if not known.any():
        return np.asarray(rows)
    z = np.arange(len(rows))
    return np.interp(z, z[known], np.asarray(rows)[known])


def model_answers(scan: RawScan) -> Answers:
    """Answers from the TotalSegmentator example: a model's labels, which no expert checked."""
    own = scan.labels
    assert own is not None
    answers = {name: np.where(_coarse(scan, np.isin(own, v)) > 0.5, YES, NO) for name, v in _MODEL.items()}
    for side in ("kidney_left", "kidney_right"):
        # The model's kidneys end at the sinus, the atlas's do not.
        sinus = ndimage.binary_closing(answers[side] == YES, iterations=4) & (answers[side] == NO)
        answers[side][sinus] = UNKNOWN
    cord = _coarse(scan, own == _MODEL_CORD) > 0.5
    # The canal's front wall lies about 3 mm before the cord.
    front = [float(np.nonzero(plane.any(axis=1))[0].min()) - 1.0 if plane.any() else np.nan for plane in cord]
    vertebrae = _coarse(scan, np.isin(own, _MODEL_VERTEBRAE)) > 0.5
    answers["vertebral_bodies"] = _bodies(vertebrae, _interpolated(front))
    return answers | {name: np.zeros(vertebrae.shape, np.uint8) for name in ("heart", "pulmonary_trunk")}


def atlas_answers(scan: RawScan) -> Answers:
    """Answers from the SPL atlas: experts' labels on an arterial phase."""
    own = scan.labels
    assert own is not None
    answers = {name: _rim(_coarse(scan, np.isin(own, values)) > 0.5) for name, values in _ATLAS.items()}
    discs = _coarse(scan, np.isin(own, _ATLAS_DISCS)) > 0.5
    back = [float(np.nonzero(plane.sum(axis=1) > 2)[0].max()) if plane.sum() > 20 else np.nan for plane in discs]
    vertebrae = _coarse(scan, np.isin(own, _ATLAS_VERTEBRAE)) > 0.5
    answers["vertebral_bodies"] = _bodies(vertebrae, _interpolated(back))
    # Above the last vertebra that is labelled whole there are more.
    top = np.nonzero(vertebrae.sum(axis=(1, 2)) > 60)[0].max()
    answers["vertebral_bodies"][top - 2 :] = UNKNOWN
    # The heart's lower half is in the picture, bright with contrast, but has no label.
    bright = ndimage.gaussian_filter(_coarse(scan, scan.hu), 1.0) > 100
    livers = np.nonzero((answers["liver"] == YES).sum(axis=(1, 2)) > 100)[0]
    for z in range(bright.shape[0]):
        front = np.nonzero((answers["aorta"][z] != NO).any(axis=1))[0]
        bright[z, front.min() if front.size else 0 :] = False
    bright[: livers.max()] = False
    components, _ = ndimage.label(ndimage.binary_opening(bright, iterations=3))
    heart = np.zeros(vertebrae.shape, np.uint8)
    heart[livers.max() - 8 :] = UNKNOWN
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    heart[components == sizes.argmax()] = YES
    return answers | {"heart": heart, "pulmonary_trunk": np.zeros(vertebrae.shape, np.uint8)}


def main() -> None:
    """Write the answers beside the other scans'."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for scan in read_all(data):
        if scan.labels is None:
            continue
        answers = model_answers(scan) if scan.name.startswith("totalsegmentator") else atlas_answers(scan)
        np.savez_compressed(
            out / f"{scan.name}.npz", **{name: value.astype(np.uint8) for name, value in answers.items()}
        )
        print(scan.name, {name: f"{np.count_nonzero(a == YES) * 0.027:.0f} mL" for name, a in answers.items()})


if __name__ == "__main__":
    main()
