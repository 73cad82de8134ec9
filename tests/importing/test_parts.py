"""Part models, as TotalSegmentator's: each becomes a pack, and a box puts their structures into one map."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from appliance.anatomy.mapper import map_organs
from appliance.anatomy.merge import merge
from appliance.anatomy.structures import STRUCTURES, with_wholes
from appliance.config import Settings
from appliance.packs import install as life
from appliance.packs.importing.nnunet import import_nnunet
from appliance.packs.importing.write import Declaration
from appliance.packs.registry import available, providers
from appliance.packs.rules import Rules
from appliance.scan import Volume
from tests.importing.conftest import write_fold
from tests.importing.totalsegmentator import PARTS

for needed in ("torch", "dynamic_network_architectures"):
    pytest.importorskip(needed, reason="the extra `import` is not installed")

pytestmark = pytest.mark.slow
#: The two parts that are imported here; all five by name alone in ``test_terms.py``.
USED = ("organs", "vertebrae")


@pytest.fixture(scope="module")
def packs(made_results, tmp_path_factory):
    """Two parts with all their classes and random weights, imported as they are."""
    folder = tmp_path_factory.mktemp("parts")
    return [import_part(made_results, folder, name, seed) for seed, name in enumerate(USED, start=1)]


def import_part(made_results: Path, folder: Path, name: str, seed: int):
    labels = {"background": 0} | {found: number for number, found in enumerate(PARTS[name], start=1)}
    source = folder / f"{name}-results"
    source.mkdir()
    shutil.copy(made_results / "plans.json", source)
    dataset = json.loads((made_results / "dataset.json").read_text()) | {"labels": labels}
    (source / "dataset.json").write_text(json.dumps(dataset))
    write_fold(source, "0", seed, classes=len(labels))
    said = Declaration(name, "0.1.0", "CC BY 4.0", "open", "Tests of the import.")
    return import_nnunet(source, folder / name, said)


def test_each_part_gives_coded_terms(packs):
    organs, vertebrae = packs
    assert len(organs.provides) == 22  # of 24; cysts have no code
    assert len(vertebrae.provides) == 25  # of 26; S1 is sacrum
    channels = {item.name: item.channels for item in vertebrae.manifest.structures}
    assert channels["sacrum"] == (1, 2)
    assert all(item.code == STRUCTURES[item.name].code for pack in packs for item in pack.manifest.structures)


def test_the_card_names_what_was_left_out(packs):
    card = (packs[0].path / "MODEL_CARD.md").read_text()
    assert "Left out, with no coded structure: kidney_cyst_left, kidney_cyst_right" in card


def test_the_parts_structures_are_one_list(packs):
    rng = np.random.default_rng(5)
    hu = rng.integers(-200, 400, (30, 40, 40)).astype(np.int16)
    volume = Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]])
    maps = [map_organs(volume, [pack], threads=2) for pack in packs]
    whole = merge(maps, providers(packs), [pack.name for pack in packs])
    assert set(whole.values) == {*packs[0].provides, *packs[1].provides}
    assert whole.labels.max() <= len(whole.values) == 47
    shown = [{name for name in item.values if item.mask(name).any()} for item in maps]
    assert all(shown)
    assert {name for name in whole.values if whole.mask(name).any()} & shown[1]  # not only the preferred part's


def test_installed_parts_stand_beside_the_shipped_pack(packs, tmp_path):
    settings = Settings.model_validate(
        {
            "box": {"state_directory": tmp_path / "state"},
            "packs": {"allow_unsigned": True, "prefer": list(USED)},
            "work": {"threads": 2},
        }
    )
    rules = Rules.from_settings(settings)
    for pack in packs:
        life.install(pack.path, rules)
        life.activate(pack.name, pack.version, rules)
    used = available(rules)
    assert {pack.name for pack in used} == {*USED, "trunk"}
    given = providers(used, settings.packs.prefer)
    assert {name for name, pack in given.items() if pack in USED} == {*packs[0].provides, *packs[1].provides}
    # Lobes are lungs and vertebrae are vertebral bodies to whoever asks for these.
    ours = with_wholes({name for name, pack in given.items() if pack in USED})
    assert {"lung_left", "lung_right", "vertebral_bodies", "airways"} <= ours
