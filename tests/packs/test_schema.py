import json
import tomllib

import jsonschema
import pytest

from appliance.packs.manifest import MANIFEST
from appliance.packs.registry import shipped_folders
from appliance.packs.schema import PATH, render


@pytest.fixture
def validator():
    return jsonschema.Draft202012Validator(json.loads(PATH.read_text()))


@pytest.fixture
def manifest():
    return tomllib.loads((shipped_folders()[0] / MANIFEST).read_text())


def test_the_file_is_what_the_code_says():
    assert PATH.read_text(encoding="utf-8") == render(), "run `make generate`"


def test_the_shipped_pack_fits(validator, manifest):
    validator.validate(manifest)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"flavour": "mild"},
        {"version": "1.0"},
        {"licence_class": "free"},
        {"structures": []},
        {"files": {"a": "no digest"}},
    ],
)
def test_the_schema_refuses_what_the_code_refuses(validator, manifest, change):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(manifest | change)
