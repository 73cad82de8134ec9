"""Whether a detection pack still gives, on this machine, the boxes and scores that it gave when it was made.

Boxes that come out of the selection may change places at the least difference; what is compared are the most probable
anchors of a tile, before selection, each with its scores and its box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.errors import InferenceError, PackError
from appliance.inference.detection import decode, sigmoid, split_levels
from appliance.inference.logits import single

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.inference.engines import Engine
    from appliance.packs.detection_part import DetectionOutput
    from appliance.packs.manifest import NetworkInput
    from appliance.packs.pack import Pack

#: Anchors in a test vector.
_ANCHORS = 256
#: An anchor agrees when no score and no side of its box differs by more than this.
SCORE_TOLERANCE = 0.02
SIDE_TOLERANCE_VOXELS = 0.5


def expected_anchors(
    answer: NDArray[np.float32], wanted: NetworkInput, part: DetectionOutput, precision: str
) -> dict[str, NDArray[np.generic]]:
    """Choose the most probable anchors of a tile and say what a test vector keeps of them.

    Parameters
    ----------
    answer
        Of the network, ``(anchors, classes + 6)``.
    wanted, part
        What the manifest says.
    precision
        That it was computed in.

    Returns
    -------
    dict[str, NDArray]
        ``anchors_<precision>`` (indices), ``scores_<precision>`` ``(n, classes)``, ``boxes_<precision>`` ``(n, 6)``.
    """
    kinds = len(part.classes)
    best = np.argsort(-answer[:, :kinds].max(axis=1), kind="stable")[:_ANCHORS]
    scores, boxes = _anchors(answer, best, wanted, part)
    return {f"anchors_{precision}": best, f"scores_{precision}": scores, f"boxes_{precision}": boxes}


def detection_agreement(pack: Pack, engine: Engine, *, expected_in: str) -> tuple[float, float]:
    """Run a detection pack's test vectors; as :func:`appliance.packs.selftest.vector_agreement`.

    Raises
    ------
    PackError
        A test vector cannot be read or does not belong to the pack.
    """
    part, wanted = pack.manifest.detection, pack.manifest.input
    if part is None:
        raise PackError(f"Pack {pack.name} {pack.version} does not detect.")
    shares, minimum = [1.0], 0.0
    for vector in pack.manifest.test_vectors:
        try:
            with np.load(pack.path / vector.path, allow_pickle=False) as item:
                hu = item["hu"]
                index, scores, boxes = (item[f"{key}_{expected_in}"] for key in ("anchors", "scores", "boxes"))
        except (OSError, KeyError, ValueError) as error:
            raise PackError(f"{vector.path}: not a usable test vector: {error}.") from error
        if hu.shape != wanted.patch or not (len(index) == len(scores) == len(boxes) > 0):
            raise PackError(f"Pack {pack.name} {pack.version}: {vector.path} does not belong to it.")
        minimum = max(minimum, vector.minimum_agreement)
        try:
            answer = single(engine.run(hu))
            split_levels(answer, wanted, part)
        except InferenceError:
            shares.append(0.0)
            continue
        found_scores, found_boxes = _anchors(answer, index, wanted, part)
        alike = (np.abs(found_scores - scores) <= SCORE_TOLERANCE).all(axis=1)
        alike &= (np.abs(found_boxes - boxes) <= SIDE_TOLERANCE_VOXELS).all(axis=1)
        shares.append(float(alike.mean()))
    return min(shares), minimum


def _anchors(
    answer: NDArray[np.float32], index: NDArray[np.intp], wanted: NetworkInput, part: DetectionOutput
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    kinds = len(part.classes)
    scores, boxes = sigmoid(answer[index, :kinds]), np.empty((len(index), 6), np.float32)
    begin = 0
    for number, level in enumerate(split_levels(answer, wanted, part)):
        end = begin + level[..., 0].size
        here = np.flatnonzero((index >= begin) & (index < end))
        boxes[here] = decode(level, number, index[here] - begin, part)
        begin = end
    return scores, boxes
