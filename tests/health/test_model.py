"""Nothing that names a patient fits into a message."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import appliance.health.schemas
from appliance.config import Settings
from appliance.health.measure import measure
from appliance.health.model import Condition, Event, Health, Presence, State
from appliance.health.schemas import TOPICS, file_name, render
from appliance.reasons import ReasonCode
from appliance.store.events import EventKind

SCHEMAS = Path(appliance.health.schemas.__file__).parent
HEADER_TEXTS = [
    "DOE^JANE",
    "张三",
    "Zhang San",
    "1.2.840.113619.2.55.3.604688119",
    "CHEST ROUTINE",
    "19610412",
    "12/04/1961",
    "St. Mary's",
]


def nodes(schema):
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


@pytest.fixture
def health(tmp_path) -> Health:
    return measure(Settings.model_validate({"box": {"state_directory": tmp_path}}))


@pytest.mark.parametrize("leaf", TOPICS)
def test_the_shipped_schema_is_current(leaf):
    assert (SCHEMAS / file_name(leaf)).read_text(encoding="utf-8") == render(leaf), "run: make generate"


@pytest.mark.parametrize("leaf", TOPICS)
def test_no_string_is_free(leaf):
    for node in nodes(json.loads(render(leaf))):
        if node.get("type") == "string":
            assert node.keys() & {"enum", "const", "pattern"} or node.get("format") == "date-time", node


@pytest.mark.parametrize("leaf", TOPICS)
def test_no_object_takes_further_keys(leaf):
    for node in nodes(json.loads(render(leaf))):
        if node.get("type") == "object":
            closed = node.get("additionalProperties") is False
            assert closed or "propertyNames" in node or "patternProperties" in node, node


@pytest.mark.parametrize("text", HEADER_TEXTS)
@pytest.mark.parametrize("field", ["appliance_version", "python_version", "config_digest", "condition"])
def test_health_takes_no_text_from_a_header(health, field, text):
    content = health.model_dump(mode="json") | {field: text}
    with pytest.raises(ValidationError):
        Health.model_validate(content)


@given(st.text().filter(lambda text: text not in set(ReasonCode)))
def test_an_event_takes_no_text(text):
    content = {"id": 1, "event": "refused", "at": "2026-01-01T00:00:00Z", "scan": 1, "reason": text, "numbers": {},
               "appliance_version": "1.0.0"}  # fmt: skip
    with pytest.raises(ValidationError):
        Event.model_validate(content)


def test_an_event_takes_finite_numbers_only():
    for value in (math.inf, math.nan):
        with pytest.raises(ValidationError):
            Event(id=1, event=EventKind.STARTED, at=datetime.now(UTC), scan=None, reason=None, numbers={"x": value},
                  appliance_version="1.0.0")  # fmt: skip


def test_a_measurement_is_valid_by_the_schema(health):
    jsonschema.validate(json.loads(health.to_payload()), json.loads(render("health")))


def test_a_box_without_a_database_is_down(health):
    assert health.condition is Condition.DOWN
    assert "store_unreadable" in health.problems


def test_the_will_is_one_short_line():
    payload = State(state=Presence.OFFLINE, session=3, appliance_version="0.1.0").to_payload()
    assert payload == b'{"schema_version":1,"state":"offline","session":3,"appliance_version":"0.1.0"}'
