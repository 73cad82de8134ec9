"""A precision that did not pass its gate is never chosen by itself."""

import re

import pytest

from appliance.errors import PackError
from appliance.inference.engines import open_engine
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load
from tests.quantising.conftest import sound

GATE = """
[[gates]]
precision = "f32"
verdict = "{verdict}"
reason = "written by a test"
scans = 1
machine = "none"
date = "2026-11-21"
[gates.margins]
maximum_dice_drop = 0.01
maximum_volume_difference = 0.02
minimum_gain = 0.1
"""


def gated(pack, verdict: str, times: int = 1):
    """Add a gate to a pack; of f32, because every machine can run that."""
    path = pack.path / MANIFEST
    path.write_text(path.read_text() + GATE.format(verdict=verdict) * times)
    return load(pack.path)


@pytest.mark.parametrize("verdict", ["failed", "not faster", "not judged"])
def test_auto_passes_over_what_did_not_pass(pack_of, verdict):
    pack = gated(pack_of(sound), verdict)
    assert pack.automatic("openvino") == ()
    with pytest.raises(PackError):
        open_engine(pack, engine="openvino", precision="auto", threads=1)


def test_whoever_asks_for_it_by_name_gets_it(pack_of):
    pack = gated(pack_of(sound), "failed")
    assert open_engine(pack, engine="openvino", precision="f32", threads=1).precision == "f32"


def test_what_passed_is_chosen(pack_of):
    pack = gated(pack_of(sound), "passed")
    assert open_engine(pack, engine="openvino", precision="auto", threads=1).precision == "f32"


def test_a_process_that_screens_passes_over_it_too(pack_of):
    from appliance.packs.runtime import Computing, open_tested

    with pytest.raises(PackError):
        open_tested(gated(pack_of(sound), "failed"), Computing(engine="openvino", threads=1))


def test_a_precision_has_one_gate(pack_of):
    with pytest.raises(PackError, match="two gates"):
        gated(pack_of(sound), "passed", times=2)


def test_the_schema_knows_gates(pack_of):
    import json
    import tomllib

    import jsonschema

    from appliance.packs.schema import PATH

    pack = gated(pack_of(sound), "passed")
    content = tomllib.loads((pack.path / MANIFEST).read_text())
    validator = jsonschema.Draft202012Validator(json.loads(PATH.read_text()))
    validator.validate(content)
    content["gates"][0]["verdict"] = "splendid"
    with pytest.raises(jsonschema.ValidationError, match=re.escape("splendid")):
        validator.validate(content)
