"""Anchors, decoding, selection and the way into the patient."""

from types import SimpleNamespace

import numpy as np
import pytest

from appliance.errors import InferenceError
from appliance.inference.corner_grid import corner_grid
from appliance.inference.detection import (
    Boxes,
    decode,
    select,
    sigmoid,
    split_levels,
    stitched_levels,
    suppress,
    to_patient,
)
from appliance.packs.detection_part import DetectionOutput
from appliance.packs.manifest import NetworkInput

PART = DetectionOutput.model_validate(
    {
        "classes": [{"name": "lung_nodule", "code": "27925004"}],
        "strides": [[4, 4, 2], [8, 8, 4]],
        "anchor_sizes": [[[6, 8, 4], [4, 4, 4]], [[12, 16, 8], [8, 8, 8]]],
        "divisible_by": [8, 8, 4],
        "score_threshold": 0.5,
        "nms_threshold": 0.3,
        "candidates_per_level": 10,
        "most_detections": 5,
    }
)
WANTED = NetworkInput(
    orientation="right-front-head",
    spacing_mm=(2, 3, 4),
    patch=(16, 16, 8),
    overlap=0.5,
    fill_hu=-1000,
    tiling="stepped",
)
ROWS = (4 * 4 * 4 + 2 * 2 * 2) * 2


def quiet() -> np.ndarray:
    answer = np.zeros((ROWS, 7), np.float32)
    answer[:, 0] = -9
    return answer


def test_a_box_is_its_anchor_moved_and_grown():
    answer = quiet()
    row = ((1 * 4 + 2) * 4 + 3) * 2  # place (1, 2, 3), first anchor of the first level
    answer[row] = [3, 0.5, 0, -1, np.log(2), 0, 0]
    levels = split_levels(answer, WANTED, PART)
    (box,) = decode(levels[0], 0, np.array([row]), PART)
    # Centre (1, 2, 3) · (4, 4, 2) + (2, 2, 1), moved by (0.5 · 6, 0, −1 · 4), sizes (12, 8, 4).
    assert box == pytest.approx([9 - 6, 10 - 4, 3 - 2, 9 + 6, 10 + 4, 3 + 2])
    found = select(levels, PART, (16, 16, 8))
    assert found.scores == pytest.approx([1 / (1 + np.exp(-3))])
    assert found.corners[0] == pytest.approx(box)


def test_boxes_are_cut_off_at_the_border_and_slivers_dropped():
    answer = quiet()
    answer[0] = [3, 0, 0, 0, 0, 0, 0]  # centre (2, 2, 1), sizes (6, 8, 4)
    answer[1] = [4, -0.5, -1, 0, 0, 0, 0]  # centre (0, −2, 1), sizes 4: nothing of it is left along the second axis
    found = select(split_levels(answer, WANTED, PART), PART, (16, 16, 8))
    assert found.corners.tolist() == [[0, 0, 0, 5, 6, 3]]


def test_growth_has_a_limit():
    answer = quiet()
    answer[0] = [3, 0, 0, 0, 50, 0, 0]
    (box,) = decode(split_levels(answer, WANTED, PART)[0], 0, np.array([0]), PART)
    assert box[3] - box[0] == pytest.approx(6 * 1000 / 16, rel=1e-4)


def test_of_two_boxes_on_one_place_the_lower_goes():
    corners = np.array([[0, 0, 0, 4, 4, 4], [1, 0, 0, 5, 4, 4], [9, 9, 9, 12, 12, 12]], np.float32)
    boxes = Boxes(corners, np.array([0.6, 0.9, 0.7], np.float32), np.zeros(3, np.intp))
    assert suppress(boxes, 0.5, 9).tolist() == [1, 2]
    assert suppress(boxes, 0.7, 9).tolist() == [1, 2, 0]
    assert suppress(boxes, 0.7, 1).tolist() == [1]
    apart = Boxes(corners, boxes.scores, np.array([0, 1, 0]))
    assert suppress(apart, 0.5, 9).tolist() == [1, 2, 0]


def test_nothing_found_is_an_empty_answer():
    found = select(split_levels(quiet(), WANTED, PART), PART, (16, 16, 8))
    assert found.corners.shape == (0, 6)
    assert to_patient(found.corners, corner_grid((8, 8, 8), np.eye(4), (1, 1, 1), (False,) * 3), WANTED) == []


@pytest.mark.parametrize("answer", [np.zeros((ROWS - 1, 7), np.float32), np.full((ROWS, 7), np.nan, np.float32)])
def test_strange_answers_are_refused(answer):
    with pytest.raises(InferenceError):
        split_levels(answer, WANTED, PART)


def test_overlapping_tiles_are_averaged_and_each_place_belongs_to_its_voxels():
    hu = np.zeros((40, 16, 8), np.int16)
    hu[20:24, 4:8, 2:4] = 100  # one place of the first level: (5, 1, 1)

    def run(tile):
        answer = quiet()
        means = tile.reshape(4, 4, 4, 4, 4, 2).mean(axis=(1, 3, 5))
        answer[: 4 * 4 * 4 * 2 : 2, 0] = means.ravel()
        return answer

    first, second = stitched_levels(hu, SimpleNamespace(run=run), WANTED, PART)
    assert first.shape == (10, 4, 4, 2, 7)
    assert second.shape == (5, 2, 2, 2, 7)
    assert np.argwhere(first[..., 0, 0] > 0).tolist() == [[5, 1, 1]]
    assert first[5, 1, 1, 0, 0] == 100


def test_boxes_go_into_the_patient():
    affine = np.array([[0, 0, 2.0, -10], [0, 3.0, 0, 20], [4.0, 0, 0, 5], [0, 0, 0, 1]])
    grid = corner_grid((10, 11, 12), affine, (4.0, 3.0, 2.0), WANTED.backwards)
    ((low, high),) = to_patient(np.array([[0, 1, 2, 3, 4, 5]]), grid, WANTED)
    # The network counts from the right end of the columns to the left: towards the right, so from the far left.
    assert low == pytest.approx((-10 + 2 * (11 - 3), 20 + 3 * (10 - 4), 5 + 4 * 2))
    assert high == pytest.approx((-10 + 2 * 11, 20 + 3 * (10 - 1), 5 + 4 * 5))


def test_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e9, 0, 1e9], np.float32)).tolist() == [0, 0.5, 1]
