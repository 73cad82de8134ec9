"""Imported TotalSegmentator structures take the place of the shipped pack's, and no screening knows of it.

nnU-Net trains a tiny network on the built-in test patient (synthetic) for minutes; it is imported and preferred.
"""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from appliance.anatomy.mapper import map_organs
from appliance.anatomy.merge import on_grid
from appliance.config import Settings
from appliance.dicom.image.volume import build_scan
from appliance.packs import install as life
from appliance.packs.importing.nnunet import import_nnunet
from appliance.packs.importing.write import Declaration
from appliance.packs.registry import available, providers
from appliance.packs.rules import Rules
from appliance.phantom import write_series
from appliance.reasons import ReasonCode
from appliance.screen import screen_series
from appliance.screenings.planner import plan
from tests.importing.proving import FOLDER, train_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
for needed in ("torch", "nnunetv2", "dynamic_network_architectures"):
    pytest.importorskip(needed, reason=f"{needed} is not installed, so nothing can be trained")

GIVEN = {"liver", "spleen", "vertebra_T12", "vertebra_L1", "vertebra_L2", "vertebra_L3"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A genuine checkpoint, with TotalSegmentator's names, as a pack."""
    trained = train_once("phantom", "train_phantom.py", FOLDER)
    said = Declaration("segmentator", "0.1.0", "Apache-2.0", "open", "Tests of the import.")
    return import_nnunet(trained, tmp_path_factory.mktemp("switch") / "pack", said)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A patient that the training did not see, the same scanner."""
    from tests.importing.train_phantom import SMALL

    folder = tmp_path_factory.mktemp("series")
    write_series(replace(SMALL, seed=77, liver_hu=33.0), folder)
    return sorted(folder.rglob("*.dcm"))


@pytest.fixture(scope="module")
def settings(pack, tmp_path_factory) -> Settings:
    """A box on which the imported pack is installed, active and preferred."""
    settings = Settings.model_validate(
        {
            "box": {"state_directory": tmp_path_factory.mktemp("box") / "state"},
            "packs": {"allow_unsigned": True, "prefer": ["segmentator"]},
            "work": {"threads": 2},
        }
    )
    rules = Rules.from_settings(settings)
    life.install(pack.path, rules)
    life.activate(pack.name, pack.version, rules)
    return settings


@pytest.fixture(scope="module")
def screened(settings, series, tmp_path_factory):
    """What one screening of the series wrote, and its report."""
    out = tmp_path_factory.mktemp("out")
    screen_series(series, settings=settings, out_directory=out)
    return out, json.loads((out / "report.json").read_text())


def used(settings: Settings) -> dict[str, str]:
    return providers(available(Rules.from_settings(settings)), settings.packs.prefer)


def test_the_imported_pack_gives_its_structures(pack, settings):
    given = used(settings)
    assert {name for name, by in given.items() if by == "segmentator"} == GIVEN == set(pack.provides)
    assert {"body", "lung_left", "lung_right"} <= {name for name, by in given.items() if by == "trunk"}


def test_the_report_names_both_packs(screened, pack):
    used = {item["name"]: item for item in screened[1]["packs"]}
    assert set(used) == {"segmentator", "trunk"}
    assert used["segmentator"]["digest"] == pack.digest
    assert used["segmentator"]["trust"] == "unsigned"


def test_structures_of_the_map_are_the_imported_networks(screened, pack, series):
    """Voxel by voxel what the pack alone says, at the places of the map's grid."""
    out, _ = screened
    alone = map_organs(build_scan(series).volume, [pack], threads=2)
    table = json.loads((out / "organ_map.json").read_text())
    image = nibabel.load(out / "organ_map.nii.gz")
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:, [2, 1, 0, 3]]
    labels = np.asarray(image.dataobj).transpose(2, 1, 0).astype(np.uint8)
    written = replace(
        alone, labels=labels, affine=affine, values={item["name"]: int(value) for value, item in table.items()}
    )
    brought = on_grid(alone, written)
    compared = []
    for name in sorted(GIVEN):
        found, expected = written.mask(name), brought == alone.values[name]
        if not expected.any():  # a network that learnt for minutes may not know the small ones
            assert not found.any(), name
            continue
        compared.append(name)
        # The file's affine is in single precision, so that a voxel half-way between two may change sides.
        assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.999, name
    assert "liver" in compared


def test_liver_fat_measures_in_the_imported_liver(screened):
    (found,) = [item for item in screened[1]["screenings"] if item["name"] == "liver_fat"]
    assert found["status"] == "finding", found
    values = {item["name"]: item["value"] for item in found["measurements"]}
    # The patient's liver was painted with 33 HU: whatever the tiny network cuts off, it found liver.
    assert abs(values["liver_mean_hu"] - 33.0) < 5.0


def test_vertebrae_by_level_serve_whoever_asks_for_vertebral_bodies(settings, series):
    """Only the imported names are offered, so nothing else can have satisfied the need."""
    given = {name for name, by in used(settings).items() if by == "segmentator"}
    assert "vertebral_bodies" not in given
    scan = build_scan(series)
    asking, reasons = set(), {}
    for entry in plan(scan, given | {"body"}, settings.screenings).entries:
        if {"vertebral_bodies"} <= set(entry.needs.structures) <= {"vertebral_bodies", "body"}:
            asking.add(entry.screening.name)
            reasons[entry.screening.name] = entry.reason
    assert {"bone_density", "vertebral_fracture"} <= asking
    lacking = {ReasonCode.STRUCTURE_NOT_PROVIDED}
    assert all(reason is None or reason.code not in lacking for reason in reasons.values())
    for entry in plan(scan, {"liver", "body"}, settings.screenings).entries:
        if entry.screening.name in asking:
            assert entry.reason is not None
            assert entry.reason.code in lacking
