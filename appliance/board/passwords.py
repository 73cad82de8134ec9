"""The board's one password, kept as a scrypt hash (RFC 7914) in a file that nobody else can read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from appliance.durable import write_durably
from appliance.errors import ConfigurationError
from appliance.secret_files import read_secret

if TYPE_CHECKING:
    from pathlib import Path

LEAST_CHARACTERS = 8
MOST_CHARACTERS = 128

# 32 MiB and about a tenth of a second of one core: a stolen file is slow to guess, a login is not slow to answer.
_COST, _BLOCK_SIZE, _PARALLEL = 2**15, 8, 1
_HIGHEST_COST, _HIGHEST_BLOCK_SIZE = 2**17, 16
_SALT_BYTES, _HASH_BYTES = 16, 32
_SCHEME = "scrypt"


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password.

    Attributes
    ----------
    cost, block_size, parallel
        N, r and p of scrypt.
    salt, digest
        Random bytes, and what scrypt made of them and the password.
    """

    cost: int
    block_size: int
    parallel: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> Self:
        """Hash a new password.

        Raises
        ------
        ConfigurationError
            It is too short or too long.
        """
        if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
            raise ConfigurationError(
                f"the password must have {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters; this one has "
                f"{len(password)}"
            )
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(_COST, _BLOCK_SIZE, _PARALLEL, salt, _scrypt(password, salt, _COST, _BLOCK_SIZE, _PARALLEL))

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read the line that :meth:`line` writes.

        Raises
        ------
        ValueError
            It is not such a line, or asks for more memory than a login may take.
        """
        scheme, cost, block_size, parallel, salt, digest = line.split("$")
        found = cls(
            int(cost), int(block_size), int(parallel), base64.b64decode(salt, validate=True),
            base64.b64decode(digest, validate=True),
        )  # fmt: skip
        affordable = found.cost <= _HIGHEST_COST and found.block_size <= _HIGHEST_BLOCK_SIZE and found.parallel == 1
        if scheme != _SCHEME or not affordable or len(found.digest) != _HASH_BYTES:
            raise ValueError(line.partition("$")[0])
        return found

    def line(self) -> str:
        """Return the hash as the one line of its file."""
        numbers = f"{self.cost}${self.block_size}${self.parallel}"
        return f"{_SCHEME}${numbers}${base64.b64encode(self.salt).decode()}${base64.b64encode(self.digest).decode()}"

    def matches(self, password: str) -> bool:
        """Whether this is the password; takes the same time either way."""
        if len(password) > MOST_CHARACTERS:
            return False
        tried = _scrypt(password, self.salt, self.cost, self.block_size, self.parallel)
        return hmac.compare_digest(tried, self.digest)


def read_password(path: Path) -> PasswordHash:
    """Read the file with the hash.

    Raises
    ------
    ConfigurationError
        It is missing, others may read it, or it holds something else, such as the password itself.
    """
    try:
        return PasswordHash.parse(read_secret(path))
    except (ValueError, binascii.Error):
        raise ConfigurationError(
            f"{path}: this is not a password's hash; write the file with `appliance board-password`"
        ) from None


def write_password(path: Path, password: str, owner_of: Path) -> None:
    """Replace the file by the hash of a password, durably and with mode 0600.

    Parameters
    ----------
    path
        The file.
    password
        The new password.
    owner_of
        When root writes it, the file is given to the owner of this folder, who runs the services.

    Raises
    ------
    ConfigurationError
        The password does not do, or the file cannot be written.
    """
    line = PasswordHash.of(password).line()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = None
        if os.geteuid() == 0 and owner_of.exists():
            found = owner_of.stat()
            owner = (found.st_uid, found.st_gid)
        write_durably(path, (line + "\n").encode("ascii"), owner=owner)
    except OSError as error:
        raise ConfigurationError(f"{path}: the password cannot be written: {error.strerror}") from error


def _scrypt(password: str, salt: bytes, cost: int, block_size: int, parallel: int) -> bytes:
    # The same password typed on two keyboards may arrive composed or decomposed (RFC 8265).
    normal = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    memory = 128 * cost * block_size * 2
    return hashlib.scrypt(
        normal, salt=salt, n=cost, r=block_size, p=parallel, dklen=_HASH_BYTES, maxmem=memory + 1024 * 1024
    )
