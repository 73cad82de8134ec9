"""Keys and passwords are read only from files that nobody else on the box can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from appliance.errors import ConfigurationError


def require_private(path: Path) -> None:
    """Refuse a secret that others may read.

    A systemd credential passes as it is: it lies in a folder of the unit alone, and its access list makes its
    mode look wider than it is.

    Raises
    ------
    ConfigurationError
        The file is missing, or its group or others have a right to it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"{path}: the secret cannot be read: {error.strerror}") from error
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and path.resolve().is_relative_to(Path(credentials).resolve()):
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{path}: mode {stat.S_IMODE(mode):04o} lets others read this secret; run `chmod 600 {path}`"
        )


def read_secret(path: Path) -> str:
    """Return the first line of a private file.

    Raises
    ------
    ConfigurationError
        See :func:`require_private`; also when the file is empty or not text.
    """
    require_private(path)
    try:
        secret = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: the secret cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: the secret is not text") from error
    if not secret:
        raise ConfigurationError(f"{path}: the secret is empty")
    return secret
