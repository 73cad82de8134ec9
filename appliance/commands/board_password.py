"""``appliance board-password``: sets the password of the alert board."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from appliance.board.passwords import LEAST_CHARACTERS, write_password
from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config import Settings


def run(settings: Settings, out: Path | None) -> None:
    """Ask for a password and write its hash.

    Parameters
    ----------
    settings
        ``board.password_file`` says where it belongs.
    out
        Another file, such as one that becomes a systemd credential.

    Raises
    ------
    ConfigurationError
        No file is named, or the password does not do.
    """
    path = out or (settings.board.password_file if settings.board else None)
    if path is None:
        raise ConfigurationError("name the file: set board.password_file in the configuration, or give --out FILE")
    if sys.stdin.isatty():
        password = click.prompt(
            f"Password of the alert board, at least {LEAST_CHARACTERS} characters",
            hide_input=True,
            confirmation_prompt=True,
        )
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    write_password(path, password, settings.box.state_directory)
    click.echo(f"{path}: written; whoever was logged in must log in again.")
