"""The configuration explained from its own types: the commented file, its JSON Schema, the manual's page.

All three are generated, so that they cannot say anything else than what :mod:`appliance.config` checks.
"""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel

from appliance.config import DEFAULT_PATH, Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic.fields import FieldInfo

_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What a key without a default looks like in the commented file.
_EXAMPLES: dict[str, Any] = {
    "receive.peers.name": "ct-1",
    "receive.peers.ae_title": "CT1",
    "receive.peers.address": "10.1.2.3",
    "receive.peers.port": 11112,
    "receive.tls.certificate": "/etc/appliance/dicom.crt",
    "receive.tls.private_key": "/etc/appliance/dicom.key",
    "receive.tls.trusted": "/etc/appliance/dicom-trusted.pem",
    "packs.repository.source": "https://packs.example/appliance",
    "packs.repository.root": "/etc/appliance/packs-root.json",
    "deliver.destinations.name": "pacs",
    "deliver.destinations.ae_title": "PACS",
    "deliver.destinations.address": "10.1.2.4",
    "deliver.destinations.tls.certificate": "/etc/appliance/box-dicom.crt",
    "deliver.destinations.tls.private_key": "/etc/appliance/box-dicom.key",
    "deliver.destinations.tls.trusted": "/etc/appliance/pacs-ca.pem",
    "deliver.dicomweb.name": "archive",
    "deliver.dicomweb.url": "https://pacs.example/dicom-web",
    "deliver.dicomweb.username": "box",
    "deliver.dicomweb.secret_file": "/etc/appliance/archive-password",
    "deliver.dicomweb.certificate": "/etc/appliance/box-web.crt",
    "deliver.dicomweb.private_key": "/etc/appliance/box-web.key",
    "deliver.dicomweb.trusted": "/etc/appliance/archive-ca.pem",
    "deliver.hl7.name": "his",
    "deliver.hl7.address": "10.1.2.5",
    "deliver.hl7.tls.certificate": "/etc/appliance/box-hl7.crt",
    "deliver.hl7.tls.private_key": "/etc/appliance/box-hl7.key",
    "deliver.hl7.tls.trusted": "/etc/appliance/his-ca.pem",
    "health.mqtt.host": "fleet.example",
    "health.mqtt.tls.certificate": "/etc/appliance/box.crt",
    "health.mqtt.tls.private_key": "/etc/appliance/box.key",
    "health.mqtt.tls.trusted": "/etc/appliance/fleet-ca.pem",
    "health.mqtt.username": "box",
    "health.mqtt.password_file": "/etc/appliance/mqtt-password",
    "board.password_file": "/etc/appliance/board-password",
    "board.tls.certificate": "/etc/appliance/board.crt",
    "board.tls.private_key": "/etc/appliance/board.key",
    "board.tls.trusted": "/etc/appliance/board-clients.pem",
}

_UNITS = {
    "_s": "seconds",
    "_min": "minutes",
    "_hours": "hours",
    "_days": "days",
    "_years": "years",
    "_mib": "MiB",
    "_mm": "mm",
    "_mm2": "mm²",
    "_mm3": "mm³",
    "_ml": "ml",
    "_hu": "HU",
    "_kv": "kV",
    "_percent": "percent",
    "_fraction": "fraction of 1",
    "_degrees": "degrees",
}

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
}

# The patterns of appliance.config in words; one that is missing here is shown as it is.
_PATTERNS = {
    r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$": "ASCII without a backslash",
    r"^[A-Za-z0-9._-]{1,64}$": "1 to 64 letters, digits, '.', '_' or '-'",
    r"^[^:]+$": "without a colon",
    r"^[A-Za-z0-9._-]{1,32}$": "1 to 32 letters, digits, '.', '_' or '-'",
}

_TYPE_NAMES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "list",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes
    ----------
    path
        Dotted name, such as ``receive.port``.
    title
        What it means.
    allowed
        Type, range and unit in words.
    required
        Whether the key must be given where its table is.
    default
        Its default; meaningless when required.
    """

    path: str
    title: str
    allowed: str
    required: bool
    default: Any

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def example(self) -> Any:
        """The value shown in the commented file: the default, or an example where there is none."""
        return _EXAMPLES[self.path] if self.required or self.default is None else self.default


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file, with its keys.

    Attributes
    ----------
    path
        Dotted name.
    title
        What it is for.
    repeated
        Whether it is an array of tables.
    optional
        Whether it is absent unless written.
    keys
        Its settings, without those of inner tables.
    """

    path: str
    title: str
    repeated: bool
    optional: bool
    keys: tuple[Key, ...]

    @property
    def header(self) -> str:
        """The line that opens it."""
        return f"[[{self.path}]]" if self.repeated else f"[{self.path}]"


def tables() -> list[Table]:
    """Return every table of the configuration in the order of the file."""
    return list(_tables(Settings, "", "", repeated=False, optional=False))[1:]


def render(shape: str) -> str:
    """Return the commented file (``toml``), its JSON Schema (``schema``) or the manual's page (``markdown``).

    Raises
    ------
    ValueError
        The shape is none of these.
    """
    makers = {"toml": _toml, "schema": _schema, "markdown": _markdown}
    if shape not in makers:
        raise ValueError(f"{shape!r} is not one of {', '.join(makers)}")
    return makers[shape]()


def show(config_path: Path | None, *, as_json: bool) -> str:
    """Return every effective setting with its value and where the value comes from.

    Raises
    ------
    ConfigurationError
        The file is missing or wrong.
    """
    settings = load(config_path)
    file = config_path or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)
    written = settings.model_dump(mode="json", exclude_unset=True)
    effective = list(_flat(settings.model_dump(mode="json"), ""))
    given = {path for path, _ in _flat(written, "")}
    rows = [(path, value, str(file) if path in given else "default") for path, value in effective]
    if as_json:
        return json.dumps([dict(zip(("key", "value", "source"), row, strict=True)) for row in rows], indent=1)
    settings_width = max(len(f"{path} = {json.dumps(value)}") for path, value, _ in rows)
    return "\n".join(
        f"{f'{path} = {json.dumps(value, ensure_ascii=False)}':<{min(settings_width, 72)}}  # {source}"
        for path, value, source in rows
    )


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# --- walking the types ----------------------------------------------------------------------------------------


def _tables(model: type[BaseModel], path: str, title: str, *, repeated: bool, optional: bool) -> Iterator[Table]:
    properties = model.model_json_schema()["properties"]
    keys: list[Key] = []
    inner: list[tuple[type[BaseModel], str, str, bool, bool]] = []
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        section, is_repeated, is_optional = _section(field)
        if section is None:
            keys.append(_key(below, field, properties[name]))
        else:
            inner.append((section, below, field.title or _first_line(section), is_repeated, is_optional))
    yield Table(path, title, repeated, optional, tuple(keys))
    for section, below, heading, is_repeated, is_optional in inner:
        yield from _tables(
            section, below, heading, repeated=is_repeated, optional=optional or is_optional or is_repeated
        )


def _section(field: FieldInfo) -> tuple[type[BaseModel] | None, bool, bool]:
    """Return the model of a table, whether it repeats, and whether it may be absent."""
    annotation = field.annotation
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        return (item, True, True) if _is_model(item) else (None, False, False)
    if get_origin(annotation) in {Union, types.UnionType}:
        models = [item for item in get_args(annotation) if _is_model(item)]
        return (models[0], False, True) if models else (None, False, False)
    return (annotation, False, False) if _is_model(annotation) else (None, False, False)


def _is_model(item: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(item, type) and issubclass(item, BaseModel)


def _key(path: str, field: FieldInfo, schema: dict[str, Any]) -> Key:
    return Key(
        path=path,
        title=field.title or "",
        allowed=_allowed(path, field.title or "", schema),
        required=field.is_required(),
        default=field.get_default(call_default_factory=True) if not field.is_required() else None,
    )


def _allowed(path: str, title: str, schema: dict[str, Any]) -> str:
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    unit = next((unit for suffix, unit in _UNITS.items() if path.endswith(suffix)), None)
    words = " or ".join(_words(choice) for choice in choices)
    return words if unit is None or f", {unit}" in title else f"{words}, {unit}"


def _words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    kind = "path" if schema.get("format") == "path" else _TYPE_NAMES.get(schema.get("type", ""), "value")
    bounds = [words.format(_number(schema[name])) for name, words in _BOUNDS.items() if name in schema]
    if "pattern" in schema:
        bounds.append(_PATTERNS.get(schema["pattern"], f"matching {schema['pattern']}"))
    return ", ".join([kind, *bounds])


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0].rstrip(".")


# --- the three shapes -----------------------------------------------------------------------------------------

_TOML_HEADING = """\
# The appliance's configuration. Generated by `appliance config reference`; copy it to /etc/appliance/appliance.toml.
#
# Every key is here with its default, or with an example where there is none. Lines that begin with "# " explain; remove
# the "#" of another line to set something. A table in double brackets may appear several times.
# `appliance config check FILE` checks the result.
"""

_MARKDOWN_HEADING = """\
# Configuration

Generated by `appliance config reference --format markdown`; the same facts as a commented file are in
`provisioning/appliance.toml` and as JSON Schema in `provisioning/appliance.schema.json`.

The file is TOML, `/etc/appliance/appliance.toml` unless `--config` names another one. Without a file the defaults hold:
the DICOM port then refuses everybody, because nobody is on its allow-list. An unknown key is an error.
`appliance config check FILE` checks a file and names the key, the value and what is allowed; `appliance config show`
prints what is in force and where it comes from.
"""


def _toml() -> str:
    lines = [_TOML_HEADING]
    for table in tables():
        if not table.keys:
            continue
        lines.append(f"# {table.title}" + (" (absent unless written)" if table.optional else ""))
        # A header alone changes nothing, and saves the reader from uncommenting two lines.
        lines.append(f"#{table.header}" if table.optional else table.header)
        for key in table.keys:
            lines.append(f"# {key.title}: {key.allowed}" if key.title else f"# {key.allowed}")
            lines.append(f"#{key.name} = {_toml_value(key.example)}" + ("  # not set" if _unset(key) else ""))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _unset(key: Key) -> bool:
    return not key.required and key.default is None


def _toml_value(value: Any) -> str:
    if isinstance(value, Enum):
        return _toml_value(value.value)
    if isinstance(value, bool | str | PurePath):
        return json.dumps(str(value) if isinstance(value, PurePath) else value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list | set | frozenset):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


def _schema() -> str:
    schema = {"$schema": _SCHEMA_DIALECT, **Settings.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _markdown() -> str:
    parts = [_MARKDOWN_HEADING]
    for table in tables():
        if not table.keys:
            continue
        parts.append(f"## `{table.header}`\n\n{table.title}.{' Absent unless written.' if table.optional else ''}\n")
        rows = ["| key | meaning | allowed | default |", "|---|---|---|---|"]
        rows += [f"| `{key.name}` | {key.title} | {_cell(key.allowed)} | {_default_cell(key)} |" for key in table.keys]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default_cell(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return "not set"
    return f"`{_cell(_toml_value(key.default))}`"
