"""What counts as a fall, what as passed, and what as not judged."""

import numpy as np
import pytest

from appliance.packs.gates import Margins
from appliance.packs.quantising.gate import LEAST_VOXELS, compare

MARGINS = Margins(maximum_dice_drop=0.01, maximum_volume_difference=0.02, minimum_gain=0.1)
STRUCTURES = {"body": 1, "bone": 2}


def labels(bone: int = 1000) -> np.ndarray:
    """A scan with this many voxels of bone."""
    found = np.ones((20, 20, 20), np.uint8)
    found.ravel()[:bone] = 2
    return found


def verdicts(*pairs, margins=MARGINS):
    return {item.name: item.verdict for item in compare(pairs, STRUCTURES, margins).structures}


def test_equal_labels_pass():
    assert verdicts((labels(), labels())) == {"body": "passed", "bone": "passed"}


def test_a_small_structure_falls_while_a_large_one_passes():
    assert verdicts((labels(100), labels(90))) == {"body": "passed", "bone": "fell"}


def test_a_structure_that_no_scan_shows_is_not_judged_and_not_passed():
    judged = compare([(labels(0), labels(0))], STRUCTURES, MARGINS)
    bone = judged.structures[1]
    assert (bone.verdict, bone.scans, bone.dice) == ("not judged", 0, None)
    assert judged.fell == ()


def test_the_cut_end_of_a_structure_does_not_judge():
    few = LEAST_VOXELS - 1
    assert verdicts((labels(few), labels(few - 20)))["bone"] == "not judged"


def test_a_structure_found_only_in_the_reduced_precision_falls():
    assert verdicts((labels(0), labels(LEAST_VOXELS)))["bone"] == "fell"


def test_a_structure_lost_in_the_reduced_precision_falls():
    (_, found) = compare([(labels(200), labels(0))], STRUCTURES, MARGINS).structures
    assert (found.verdict, found.dice, found.volume_difference) == ("fell", 0.0, 1.0)


def test_a_scan_without_the_structure_does_not_dilute_the_mean():
    (_, bone) = compare([(labels(1000), labels(1000)), (labels(0), labels(0))], STRUCTURES, MARGINS).structures
    assert bone.scans == 1


def test_one_bad_scan_among_many_good_ones_is_a_fall():
    good = (labels(), labels())
    bad = (labels(), labels(920))  # Dice 0.958; the mean over ten scans is 0.996
    assert verdicts(*[good] * 9, bad)["bone"] == "fell"


def test_volume_has_a_margin_of_its_own():
    loose = Margins(maximum_dice_drop=0.4, maximum_volume_difference=0.05, minimum_gain=0.1)
    assert verdicts((labels(1000), labels(1040)), margins=loose)["bone"] == "passed"
    assert verdicts((labels(1000), labels(1060)), margins=loose)["bone"] == "fell"


@pytest.mark.parametrize(("found", "dice"), [(1000, 1.0), (980, 2 * 980 / 1980)])
def test_dice_is_against_single_precision(found, dice):
    (_, bone) = compare([(labels(1000), labels(found))], STRUCTURES, MARGINS).structures
    assert bone.dice == pytest.approx(dice, abs=1e-5)
