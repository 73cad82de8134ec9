"""What a MONAI bundle's configuration says, read without ever running any of it.

MONAI imports whatever class a configuration names and evaluates whatever expression it holds. Here names are only
compared with short lists, and an expression is parsed and understood only where it is a literal, a reference, a choice
between these, or a call, which is described and never made. All else stays :class:`NotUnderstood` until it is needed.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from pathlib import Path

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_STAND_IN = "reference_"
#: Look-ups in one configuration; references can be nested so that they multiply without end.
_MOST_STEPS = 20_000
_LARGEST_BYTES = 4 << 20
_ENDLESS = "{name}: its references lead in circles, or are nested without end."


@dataclass(frozen=True, slots=True)
class Described:
    """A class to build or a call to make, as the configuration describes it.

    Attributes
    ----------
    name
        Dotted name; for a method of a component ``"@component.method"``.
    arguments, keywords
        Resolved, but not checked: they may hold what was not understood.
    disabled
        The configuration's ``_disabled_``.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    disabled: bool = False

    @property
    def last(self) -> str:
        """Name without the modules before it."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """An expression that could only be known by running it."""

    text: str


class Configuration:
    """One configuration file of a bundle.

    Parameters
    ----------
    content
        As read from the file.
    name
        Of the file, for sentences.
    """

    def __init__(self, content: dict[str, Any], name: str) -> None:
        self._content = content
        self._steps = 0
        self.name = name

    def get(self, key: str) -> Any:
        """Resolve a top-level entry; ``None`` where there is none.

        Raises
        ------
        PackError
            A reference leads nowhere or in circles, or lists are nested without end.
        """
        try:
            return self._resolve(self._content[key], (key,)) if key in self._content else None
        except RecursionError as error:  # YAML's aliases can make a list that holds itself
            raise PackError(_ENDLESS.format(name=self.name)) from error

    def plain(self, value: Any, where: str) -> Any:
        """See that a resolved value is plain: numbers, text, truth values, and lists and tables of these.

        Raises
        ------
        PackError
            It holds a component or an expression that was not understood.
        """
        if isinstance(value, NotUnderstood):
            raise PackError(
                f"{self.name}: {where} is the expression {value.text[:120]!r}, which would have to be run to know its "
                "value. Nothing in a bundle is run: write the value itself there."
            )
        if isinstance(value, Described):
            raise PackError(f"{self.name}: {where} builds {value.name!r}, where a plain value is needed.")
        if isinstance(value, list):
            return [self.plain(item, where) for item in value]
        if isinstance(value, dict):
            return {str(key): self.plain(item, f"{where}.{key}") for key, item in value.items()}
        return value

    def component(self, value: Any, where: str) -> Described:
        """See that a resolved value is a component.

        Raises
        ------
        PackError
            It is something else.
        """
        if isinstance(value, Described):
            return value
        self.plain(value, where)
        raise PackError(f"{self.name}: {where} describes no component (it has no _target_).")

    def _resolve(self, value: Any, trail: tuple[str, ...]) -> Any:
        self._steps += 1
        if self._steps > _MOST_STEPS or len(trail) > 64:
            raise PackError(_ENDLESS.format(name=self.name))
        if isinstance(value, str):
            return self._text(value, trail)
        if isinstance(value, list):
            return [self._resolve(item, trail) for item in value]
        if isinstance(value, dict):
            if "_target_" in value:
                return self._described(value, trail)
            return {key: self._resolve(item, trail) for key, item in value.items()}
        return value

    def _described(self, value: dict[str, Any], trail: tuple[str, ...]) -> Described:
        name = value["_target_"]
        if not isinstance(name, str) or value.get("_mode_", "default") != "default":
            raise PackError(f"{self.name}: {'.'.join(trail)} builds {name!r} in a way that is not understood.")
        keywords = {key: self._resolve(item, trail) for key, item in value.items() if not key.startswith("_")}
        return Described(name, (), keywords, disabled=self._resolve(value.get("_disabled_", False), trail) is True)

    def _text(self, text: str, trail: tuple[str, ...]) -> Any:
        if text.startswith("%"):
            raise PackError(f"{self.name}: {text[:120]!r} takes in another file; write everything into one file.")
        if text.startswith("$"):
            return self._expression(text, trail)
        if text.startswith("@"):
            return self._look_up(text[1:], trail) if _REFERENCE.fullmatch(text) else NotUnderstood(text)
        return text

    def _look_up(self, name: str, trail: tuple[str, ...]) -> Any:
        if name in trail:
            raise PackError(f"{self.name}: @{name} refers to itself.")
        value: Any = self._content
        for part in re.split(r"#|::", name):
            if isinstance(value, str):
                value = self._resolve(value, (*trail, name))
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise PackError(f"{self.name}: @{name} refers to something that is not there.") from error
        return self._resolve(value, (*trail, name))

    def _expression(self, text: str, trail: tuple[str, ...]) -> Any:
        names: list[str] = []

        def stand_in(match: re.Match[str]) -> str:
            names.append(match[1])
            return f"{_STAND_IN}{len(names) - 1}"

        if _STAND_IN in text:
            return NotUnderstood(text)
        try:
            tree = ast.parse(_REFERENCE.sub(stand_in, text[1:]).strip(), mode="eval")
            return self._node(tree.body, names, trail)
        except (SyntaxError, ValueError, RecursionError, MemoryError, _Strange):
            return NotUnderstood(text)

    def _node(self, node: ast.expr, names: list[str], trail: tuple[str, ...]) -> Any:
        """Read one node of a parsed expression; nothing is called, looked up in a module, or calculated."""
        if isinstance(node, ast.Constant) and (isinstance(node.value, (str, int, float)) or node.value is None):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._node(item, names, trail) for item in node.elts]
        if isinstance(node, ast.Name) and node.id.startswith(_STAND_IN):
            return self._look_up(names[int(node.id.removeprefix(_STAND_IN))], trail)
        if isinstance(node, ast.UnaryOp):
            return _signed(node.op, self._node(node.operand, names, trail))
        if isinstance(node, ast.IfExp):
            condition = self._node(node.test, names, trail)
            if not isinstance(condition, (bool, int, float)):
                raise _Strange
            return self._node(node.body if condition else node.orelse, names, trail)
        if isinstance(node, ast.Call):
            return self._call(node, names, trail)
        raise _Strange

    def _call(self, node: ast.Call, names: list[str], trail: tuple[str, ...]) -> Any:
        dotted: list[str] = []
        part = node.func
        while isinstance(part, ast.Attribute):
            dotted.insert(0, part.attr)
            part = part.value
        if not isinstance(part, ast.Name) or any(keyword.arg is None for keyword in node.keywords):
            raise _Strange
        root = part.id
        if root.startswith(_STAND_IN):
            root = f"@{names[int(root.removeprefix(_STAND_IN))]}"
            if dotted == ["to"]:  # moves a network to a device; it stays the same network
                return self._look_up(root[1:], trail)
        arguments = tuple(self._node(item, names, trail) for item in node.args)
        keywords = {str(item.arg): self._node(item.value, names, trail) for item in node.keywords}
        return Described(".".join([root, *dotted]), arguments, keywords)


class _Strange(Exception):  # noqa: N818  # a signal within this module
    """A part of an expression that is not understood."""


def _signed(operator: ast.unaryop, value: Any) -> Any:
    if isinstance(operator, ast.Not) and isinstance(value, (bool, int)):
        return not value
    if isinstance(operator, ast.USub) and isinstance(value, (int, float)):
        return -value
    raise _Strange


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file of a bundle.

    Raises
    ------
    PackError
        It is missing, far too large, damaged, no table, or YAML that would build objects.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PackError(f"{path}: larger than {_LARGEST_BYTES >> 20} MiB; no configuration is.")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else _yaml(text, path)
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror}); give the bundle's folder.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise PackError(f"{path}: not a JSON file, or damaged ({error}).") from error
    if not isinstance(content, dict):
        raise PackError(f"{path}: does not hold a table.")
    return {str(key): value for key, value in content.items()}


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())[:200]
        raise PackError(f"{path}: not a plain YAML file: {said}.") from error
