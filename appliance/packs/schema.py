"""The JSON Schema of ``pack.toml``, as a file for editors and for whoever writes packs without this package."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.packs.manifest import Manifest

PATH = Path(__file__).parent / "pack.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render() -> str:
    """Return the schema, made from the model that checks packs."""
    schema = Manifest.model_json_schema()
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"


def write(path: Path = PATH) -> None:
    """Write it."""
    path.write_text(render(), encoding="utf-8")
