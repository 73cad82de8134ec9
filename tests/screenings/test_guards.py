"""The shared guards on a chest of known density."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from appliance.anatomy.native import native_mask
from appliance.scan import ContrastTag
from appliance.screenings.guards import airway_noise_hu, judge
from tests.screenings.chest import Chest, make


def look(chest: Chest):
    return judge(*make(chest))


def test_plain_chest_passes():
    judgement = look(Chest())
    assert judgement.quality is None
    assert judgement.contrast_reason is None
    assert judgement.contrast == "none"
    assert judgement.air_hu == pytest.approx(-1000, abs=5)
    assert judgement.blood_hu == pytest.approx(40, abs=3)


@pytest.mark.parametrize("noise_hu", [0.0, 12.0, 20.0])
@pytest.mark.parametrize(
    ("offset_hu", "code"),
    [
        (0, None),
        (12, None),
        (30, "air_not_calibrated"),
        (100, "air_not_calibrated"),
        (-33, "air_not_calibrated"),
        (-60, "air_not_calibrated"),
    ],
)
def test_a_constant_offset_gives_no_number(offset_hu, code, noise_hu):
    quality = look(Chest(offset_hu=offset_hu, noise_hu=noise_hu)).quality
    assert (quality.code if quality else None) == code


@pytest.mark.parametrize(("noise_hu", "air_hu"), [(15.0, -960), (15.0, -1000), (45.0, -1000), (30.0, -940)])
def test_noise_is_measured_in_the_trachea(noise_hu, air_hu):
    chest = Chest(noise_hu=noise_hu, air_hu=air_hu, spacing_mm=(2.0, 1.0, 1.0))
    assert airway_noise_hu(*make(chest)) == pytest.approx(noise_hu, rel=0.1)


def test_noise_is_not_mistaken_for_walls_that_a_map_too_large_takes_in():
    scan, organs = make(Chest(noise_hu=15.0, air_hu=-960, spacing_mm=(2.0, 1.0, 1.0)))
    labels = organs.labels.copy()
    labels[ndimage.binary_dilation(organs.mask("airways"))] = organs.values["airways"]
    assert airway_noise_hu(scan, replace(organs, labels=labels)) == pytest.approx(15.0, rel=0.1)


def test_no_airway_no_noise():
    scan, organs = make(Chest())
    labels = organs.labels.copy()
    labels[organs.mask("airways")] = 1
    assert airway_noise_hu(scan, replace(organs, labels=labels)) is None


def test_enhanced_blood_without_a_word_in_the_header_disagrees():
    judgement = look(Chest(blood_hu=140))
    assert judgement.contrast == "unknown"
    assert judgement.contrast_reason.code == "contrast_disagrees"


def test_a_header_that_says_contrast_with_plain_blood_disagrees():
    judgement = look(Chest().with_acquisition(contrast_tag=ContrastTag.GIVEN))
    assert judgement.contrast_reason.code == "contrast_disagrees"


def test_header_and_blood_agree_on_contrast():
    judgement = look(Chest(blood_hu=140).with_acquisition(contrast_tag=ContrastTag.GIVEN))
    assert judgement.contrast == "given"
    assert judgement.contrast_reason.code == "contrast_enhanced"


def with_aorta(blood_hu: int, **acquisition):
    """A chest whose great vessel is marked; the rest of its soft tissue reads as plain."""
    scan, organs = make(Chest().with_acquisition(**acquisition))
    labels = organs.labels.copy()
    _, y, x = np.indices(labels.shape)
    tube = (y - labels.shape[1] // 2 + 18) ** 2 + (x - labels.shape[2] // 2) ** 2 < 25
    labels[tube & (labels == 1)] = 6
    organs = replace(organs, labels=labels, values={**organs.values, "aorta": 6})
    box, mask = native_mask(organs, scan.volume, "aorta")
    hu = scan.volume.hu.copy()
    hu[box][mask] = blood_hu
    return replace(scan, volume=replace(scan.volume, hu=hu)), organs


@pytest.mark.parametrize(("blood_hu", "contrast"), [(42, "none"), (22, "none"), (72, "unknown"), (180, "unknown")])
def test_blood_is_asked_in_the_aorta(blood_hu, contrast):
    judgement = judge(*with_aorta(blood_hu))
    assert judgement.blood_hu == pytest.approx(blood_hu, abs=2)
    assert judgement.contrast == contrast


def test_an_aorta_that_is_not_believed_is_not_asked():
    scan, organs = with_aorta(180)
    assert judge(scan, organs, {"aorta"}).blood_hu < 100


def test_an_aorta_and_a_header_that_agree_on_contrast():
    judgement = judge(*with_aorta(180, contrast_tag=ContrastTag.GIVEN))
    assert judgement.contrast == "given"


@pytest.mark.parametrize(("slices", "streaked"), [(0, set()), (8, set()), (60, {"airways", "lung_left", "lung_right"})])
def test_metal_spoils_the_organs_of_its_slices(slices, streaked):
    scan, organs = make(Chest())
    hu = scan.volume.hu.copy()
    hu[50 : 50 + slices, 140:148, 80:88] = 3071
    judgement = judge(replace(scan, volume=replace(scan.volume, hu=hu)), organs)
    assert judgement.streaked.keys() == streaked
    assert all(reason.code == "metal_artifacts" for reason in judgement.streaked.values())
