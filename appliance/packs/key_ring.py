"""Who may sign packs: Ed25519 keys (RFC 8032), each with a role and a last day.

A public key is a small JSON file that an administrator can read; a private key is PKCS #8 in PEM, readable by its owner
alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from appliance.errors import ConfigurationError, PackError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".public.json"
PRIVATE_SUFFIX = ".private.pem"
SHIPPED_KEYS = Path(__file__).parent / "keys"
_LONGEST_FILE = 1 << 16
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")


class Role(StrEnum):
    """What a key is for."""

    RELEASE = "release"  # packs of the appliance's makers; such keys come with the package only
    VENDOR = "vendor"  # packs of somebody else; never one with the name of a shipped pack
    SITE = "site"  # whatever the owner of the box has decided to run


class PublicKey(BaseModel):
    """A public key file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    key: Annotated[str, Field(title="First 16 digits of the SHA-256 of the public key", pattern=r"^[0-9a-f]{16}$")]
    role: Role
    holder: Annotated[str, Field(title="Whose key it is, in words", min_length=1, max_length=200)]
    public: Annotated[str, Field(title="The 32 bytes of the Ed25519 public key", pattern=r"^[0-9a-f]{64}$")]
    not_after: AwareDatetime = Field(title="Last moment at which a pack with its signature may be installed")

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return bytes.fromhex(self.public)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The public keys that this box trusts, by their id."""

    keys: dict[str, PublicKey]

    @classmethod
    def read(cls, places: Iterable[Path] = ()) -> KeyRing:
        """Read the package's own keys and those of the configuration.

        Parameters
        ----------
        places
            Public key files, or folders of them (``packs.keys``).

        Raises
        ------
        ConfigurationError
            A file is missing or is no public key, or a key of the configuration claims the role ``release``.
        """
        keys = {}
        for path in sorted(SHIPPED_KEYS.glob(f"*{PUBLIC_SUFFIX}")):
            key = read_public_key(path)
            keys[key.key] = key
        for place in places:
            for path in sorted(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else [place]:
                key = read_public_key(path)
                if key.role is Role.RELEASE:
                    raise ConfigurationError(
                        f"{path}: release keys come with the appliance only; give this key the role site or vendor"
                    )
                keys.setdefault(key.key, key)
        return cls(keys)


def key_id(public: bytes) -> str:
    """Return the id of a public key: the first 16 digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_public_key(path: Path) -> PublicKey:
    """Read one public key file.

    Raises
    ------
    ConfigurationError
        It cannot be read or is no public key.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_LONGEST_FILE)
        key = PublicKey.model_validate_json(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: the public key cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ConfigurationError(f"{path}: not a public key of this appliance: {where}: {first['msg']}") from error
    if key.key != key_id(key.raw):
        raise ConfigurationError(f"{path}: the id {key.key} does not belong to this public key")
    return key


def read_private_key(path: Path) -> tuple[Ed25519PrivateKey, PublicKey]:
    """Read a private key and the public key file beside it.

    Raises
    ------
    ConfigurationError
        One is missing or wrong, they do not belong together, or others may read the private one.
    """
    if not path.name.endswith(PRIVATE_SUFFIX):
        raise ConfigurationError(f"{path}: a private key's name ends with {PRIVATE_SUFFIX}")
    private = load_private_key(path)
    public = read_public_key(path.with_name(path.name.removesuffix(PRIVATE_SUFFIX) + PUBLIC_SUFFIX))
    if private.public_key().public_bytes_raw() != public.raw:
        raise ConfigurationError(f"{path}: the public key file beside it belongs to another key")
    return private, public


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key alone.

    Raises
    ------
    ConfigurationError
        It is missing or wrong, or others may read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path}: others can read this private key; run `chmod 600 {path}`")
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"{path}: the private key cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: not a private key in PEM form without a password") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: not an Ed25519 key, and packs and their lists are signed with no other")
    return private


def make_key(folder: Path, name: str, *, role: Role, holder: str, days: int) -> tuple[Path, PublicKey]:
    """Make a key pair: ``<name>.private.pem`` (mode 0600) and ``<name>.public.json``.

    Parameters
    ----------
    folder
        Where both files go; made when it is missing.
    name
        First part of the file names.
    role, holder
        What the key is for and whose it is.
    days
        Days until it expires.

    Returns
    -------
    tuple[Path, PublicKey]
        The private key's file and what the public one says.

    Raises
    ------
    PackError
        There is a key of that name, or the files cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not _NAME.fullmatch(name):
        raise PackError(f"{name!r} cannot name a key; use small letters, digits, '.', '_' and '-', at most 48.")
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    not_after = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    public = PublicKey(key=key_id(raw), role=role, holder=holder, public=raw.hex(), not_after=not_after)
    path = folder / f"{name}{PRIVATE_SUFFIX}"
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    text = json.dumps(public.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never over another key
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        (folder / f"{name}{PUBLIC_SUFFIX}").write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise PackError(f"{path}: there is a key of this name already; choose another name.") from error
    except OSError as error:
        raise PackError(f"{folder}: the keys cannot be written ({error.strerror}).") from error
    return path, public
