"""Options that commands share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config`` and hand the effective settings to the command."""

    @click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
    @functools.wraps(command)
    def wrapper(*args: Any, config_path: Path | None, **kwargs: Any) -> Any:
        from appliance.config import load

        return command(*args, settings=load(config_path), **kwargs)

    return wrapper


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people."
)
