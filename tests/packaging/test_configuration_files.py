"""The generated files in the repository say what the code says."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from appliance.config import Settings, load
from appliance.config_reference import render, show, tables

ROOT = Path(__file__).parents[2]
UNCOMMENTED = re.compile(r"(?m)^#(?=[a-z\[])")


def everything_set() -> dict:
    return tomllib.loads(UNCOMMENTED.sub("", render("toml")))


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("provisioning/appliance.toml", "toml"),
        ("provisioning/appliance.schema.json", "schema"),
        ("docs/configuration.md", "markdown"),
    ],
)
def test_is_current(path, shape):
    assert (ROOT / path).read_text(encoding="utf-8") == render(shape), "run: make generate"


def test_the_commented_file_changes_nothing():
    assert load(ROOT / "provisioning/appliance.toml") == Settings()


def test_the_file_with_everything_uncommented_loads():
    Settings.model_validate(everything_set())


def test_the_commented_file_has_every_key():
    def first(value):
        return value[0] if isinstance(value, list) else value

    tree = everything_set()
    for table in tables():
        found = tree
        for part in table.path.split("."):
            found = first(found[part])
        assert {key.name for key in table.keys} <= set(found)


def test_defaults_stay_when_everything_that_has_one_is_uncommented():
    uncommented = Settings.model_validate(everything_set())
    for table in tables():
        if not table.optional:
            mine, default = uncommented, Settings()
            for part in table.path.split("."):
                mine, default = getattr(mine, part), getattr(default, part)
            for key in table.keys:
                assert getattr(mine, key.name) == getattr(default, key.name), key.path


def test_every_key_has_a_title():
    assert not [key.path for table in tables() for key in table.keys if not key.title]


def test_the_schema_accepts_the_commented_file_and_refuses_an_unknown_key():
    schema = json.loads(render("schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(everything_set())
    assert not validator.is_valid({"box": {"nmae": "typing mistake"}})


def test_show_tells_where_a_value_comes_from(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text("[receive]\nport = 104\n")
    rows = {row["key"]: row for row in json.loads(show(file, as_json=True))}
    assert rows["receive.port"] == {"key": "receive.port", "value": 104, "source": str(file)}
    assert rows["receive.ae_title"]["source"] == "default"


def test_show_as_text_has_one_line_for_each_setting():
    lines = show(None, as_json=False).splitlines()
    assert len(lines) == len(json.loads(show(None, as_json=True)))
    assert all("  # " in line for line in lines)
