"""Part models, as TotalSegmentator's: each becomes a pack, and a box puts their structures into one map."""

import json
import shutil

import numpy as np
import pytest

from appliance.anatomy.mapper import map_organs
from appliance.anatomy.merge import merge
from appliance.packs.importing.nnunet import import_nnunet
from appliance.packs.importing.write import Declaration
from appliance.packs.registry import providers
from appliance.scan import Volume

for needed in ("torch", "dynamic_network_architectures"):
    pytest.importorskip(needed, reason="the extra `import` is not installed")

PARTS = {
    "organs": {"background": 0, "spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 4},
    "vertebrae": {"background": 0, "vertebrae_L5": 1, "vertebrae_L4": 2, "rib_left_1": 3, "rib_left_2": 4},
}


def import_part(made_results, folder, name):
    source = folder / f"{name}-results"
    shutil.copytree(made_results, source)
    dataset = json.loads((source / "dataset.json").read_text()) | {"labels": PARTS[name]}
    (source / "dataset.json").write_text(json.dumps(dataset))
    said = Declaration(name, "0.1.0", "CC BY 4.0", "open", "Tests of the import.")
    return import_nnunet(source, folder / name, said, folds=("0" if name == "organs" else "1",))


@pytest.mark.slow
def test_the_parts_structures_are_one_list(made_results, tmp_path):
    packs = [import_part(made_results, tmp_path, name) for name in PARTS]
    rng = np.random.default_rng(5)
    hu = rng.integers(-200, 400, (30, 40, 40)).astype(np.int16)
    volume = Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]])
    maps = [map_organs(volume, [pack], threads=2) for pack in packs]
    whole = merge(maps, providers(packs), [pack.name for pack in packs])
    assert set(whole.values) == {
        "spleen",
        "kidney_right",
        "kidney_left",
        "liver",
        "vertebra_L5",
        "vertebra_L4",
        "ribs_left",
    }
    assert whole.labels.max() <= len(whole.values)
    assert whole.labels.any()
