"""The JSON Schemas of everything published over MQTT, as files that a fleet can check messages with."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.health.messages import COMMANDS, MESSAGES

TOPICS = MESSAGES | COMMANDS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render(leaf: str) -> str:
    """Return the schema of ``appliances/<box>/<leaf>``, made from its model."""
    schema = TOPICS[leaf].model_json_schema(mode="serialization")
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"


def file_name(leaf: str) -> str:
    """Return the name of the file that holds a topic's schema."""
    return leaf.replace("/", "-") + ".json"


def write(folder: Path = Path(__file__).parent) -> None:
    """Write every schema into its file."""
    for leaf in TOPICS:
        (folder / file_name(leaf)).write_text(render(leaf), encoding="utf-8")
