"""Vertebral bodies and their levels: right, or called uncertain; never silently wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.organ_map import OrganMap
from appliance.anatomy.spine import _put_body, spine
from appliance.phantom import PhantomOptions
from tests.screenings.example_abdomen import FOLDER, example_abdomen
from tests.screenings.patients import organs_of, patient

pytestmark = pytest.mark.slow

OPTIONS = PhantomOptions(
    coverage_low_mm=-255.0,
    coverage_high_mm=40.0,
    rows=256,
    columns=256,
    pixel_spacing_mm=1.5,
    slice_spacing_mm=2.0,
    slice_thickness_mm=2.0,
)


@pytest.fixture(scope="module")
def trunk():
    return patient(OPTIONS)


def named_right(found, truth):
    """Whether every body carries the name of the true body nearest to it."""
    places = {body.name: np.array(body.centre_mm) for body in truth.vertebrae}
    nearest = [min(places, key=lambda name: np.linalg.norm(places[name] - item.centre_mm)) for item in found.vertebrae]
    return [item.level for item in found.vertebrae] == nearest


def with_labels(organs, labels):
    return replace(organs, labels=np.ascontiguousarray(labels.astype(np.uint8)))


def without(organs, *names):
    labels = organs.labels.copy()
    for name in names:
        labels[labels == organs.values[name]] = organs.values["body"]
    return with_labels(organs, labels)


def cropped_below(scan, organs, z_mm):
    """The scan and its map without what lies below a height."""
    volume = scan.volume
    first = int(np.ceil((z_mm - volume.affine[2, 3]) / volume.affine[2, 0]))
    affine = np.array(volume.affine)
    affine[:3, 3] += first * affine[:3, 0]
    layer = int(np.ceil((z_mm - organs.affine[2, 3]) / organs.affine[2, 0]))
    map_affine = np.array(organs.affine)
    map_affine[:3, 3] += layer * map_affine[:3, 0]
    smaller = replace(volume, hu=np.array(volume.hu[first:]), affine=affine, frames=())
    return smaller, replace(organs, labels=np.ascontiguousarray(organs.labels[layer:]), affine=map_affine)


def without_lowest_ribs(organs, truth):
    """The map as if the twelfth ribs were too short to be seen beyond the transverse processes."""
    centre = next(body.centre_mm for body in truth.vertebrae if body.name == "T12")
    places = np.indices(organs.labels.shape).reshape(3, -1).T @ organs.affine[:3, :3].T + organs.affine[:3, 3]
    away = (abs(places[:, 2] - centre[2]) < 17.0) & (abs(places[:, 0]) > 36.0) & (abs(places[:, 0]) < 75.0)
    labels = organs.labels.copy()
    labels[away.reshape(labels.shape) & (labels == organs.values["bone"])] = organs.values["body"]
    return with_labels(organs, labels)


def test_counted_from_ribs_and_sacrum(trunk):
    scan, organs, truth = trunk
    found = spine(Anatomy(scan.volume, organs))
    assert named_right(found, truth)
    assert found.certain
    assert {"lowest ribs", "sacrum"} <= set(found.landmarks)


def test_bodies_lie_where_they_are(trunk):
    scan, organs, truth = trunk
    found = spine(Anatomy(scan.volume, organs))
    for body in truth.vertebrae:
        item = found.level(body.name)
        if body.whole_in_scan and item is not None and item.whole:
            assert np.linalg.norm(item.centre_mm - np.array(body.centre_mm)) < 5.0
    assert sum(item.whole for item in found.vertebrae) >= 7


def test_a_map_without_gaps_between_the_bodies(trunk):
    from scipy import ndimage

    scan, organs, truth = trunk
    labels = organs.labels.copy()
    closed = ndimage.binary_closing(labels == organs.values["vertebral_bodies"], iterations=4)
    labels[closed] = organs.values["vertebral_bodies"]
    found = spine(Anatomy(scan.volume, with_labels(organs, labels)))
    assert found.certain
    assert named_right(found, truth)


def test_levels_given_by_a_pack(trunk):
    scan, _, truth = trunk
    found = spine(Anatomy(scan.volume, organs_of(OPTIONS, levels=True)))
    assert found.certain
    assert named_right(found, truth)


def test_ribs_alone_with_kidneys_and_lungs(trunk):
    scan, organs, truth = trunk
    found = spine(Anatomy(*cropped_below(scan, organs, -165.0)))
    assert found.certain
    assert named_right(found, truth)


def test_short_lowest_ribs_beside_a_sacrum_are_a_contradiction(trunk):
    scan, organs, truth = trunk
    found = spine(Anatomy(scan.volume, without_lowest_ribs(organs, truth)))
    assert named_right(found, truth) or not found.certain


def test_short_lowest_ribs_without_a_sacrum_are_not_believed(trunk):
    scan, organs, truth = trunk
    found = spine(Anatomy(*cropped_below(scan, without_lowest_ribs(organs, truth), -165.0)))
    assert named_right(found, truth) or not found.certain


def test_one_landmark_is_not_enough(trunk):
    scan, organs, _ = trunk
    alone = without(organs, "lung_left", "lung_right", "kidney_left", "kidney_right")
    found = spine(Anatomy(*cropped_below(scan, alone, -165.0)))
    assert not found.certain


def test_a_map_without_vertebrae(trunk):
    scan, organs, _ = trunk
    found = spine(Anatomy(scan.volume, without(organs, "vertebral_bodies")))
    assert found.vertebrae == ()
    assert not found.certain


def unnamed(organs: OrganMap) -> OrganMap:
    """The real scan's labels as the reference pack would give them: bodies of one class, all other bone another."""
    rows = json.loads((FOLDER / "labels.json").read_text())
    of = {row["name"]: int(number) for number, row in rows.items()}
    bony = ("vertebrae_", "rib_", "sacrum", "hip_", "femur_")
    labels = np.zeros_like(organs.labels)
    kept = {"kidney_left": 2, "kidney_right": 3, "lung_left": 4, "lung_right": 5}
    for name, number in of.items():
        if name.startswith(bony):
            labels[organs.labels == number] = 1
        for side in ("left", "right"):
            if name == f"kidney_{side}" or (name.startswith("lung_") and name.endswith(side)):
                labels[organs.labels == number] = kept[f"{name.split('_')[0]}_{side}"]
    bodies = np.zeros_like(labels)
    for name, number in of.items():
        if name.startswith("vertebrae_") and name != "vertebrae_S1":
            _put_body(organs.labels == number, organs, 1, bodies)
    labels[bodies > 0] = 6
    return OrganMap(labels, organs.affine, {"bone": 1, **kept, "vertebral_bodies": 6}, organs.pack)


def test_a_real_spine_is_counted_as_its_labels_name_it():
    scan, organs = example_abdomen()
    named = spine(Anatomy(scan.volume, organs))
    counted = spine(Anatomy(scan.volume, unnamed(organs)))
    assert named.certain
    assert counted.certain
    assert [item.level for item in named.vertebrae] == ["L5", "L4", "L3", "L2", "L1", "T12"]
    assert [item.level for item in counted.vertebrae] == [item.level for item in named.vertebrae]
