"""A pack's signature: ``pack.sig`` beside ``pack.toml``, over the digest of the manifest, which holds the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from appliance.durable import write_durably
from appliance.errors import PackError
from appliance.packs.key_ring import Role, read_private_key
from appliance.packs.manifest import SIGNATURE
from appliance.packs.pack import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from appliance.packs.key_ring import KeyRing, PublicKey
    from appliance.packs.pack import Pack

# No signature over anything else can be mistaken for one over a pack.
_CONTEXT = b"appliance pack signature 1\n"
_LONGEST_FILE = 1 << 16


class Signature(BaseModel):
    """``pack.sig``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    pack: str
    version: str
    digest: Annotated[str, Field(title="SHA-256 of pack.toml", pattern=r"^sha256:[0-9a-f]{64}$")]
    key: Annotated[str, Field(title="Id of the key", pattern=r"^[0-9a-f]{16}$")]
    role: Role
    signed_at: AwareDatetime
    signature: Annotated[str, Field(title="Ed25519, hexadecimal", pattern=r"^[0-9a-f]{128}$")]

    def message(self) -> bytes:
        """Return the signed bytes: a line that names the purpose, then all other fields as canonical JSON."""
        fields = self.model_dump(mode="json", exclude={"signature"})
        return _CONTEXT + json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sign(pack: Pack, private_key: Path, *, now: datetime | None = None) -> Signature:
    """Sign a pack whose files have been verified, and write ``pack.sig`` into its folder.

    Parameters
    ----------
    pack
        As :func:`appliance.packs.pack.load` gives it.
    private_key
        ``….private.pem`` with its ``….public.json`` beside it.
    now
        Another time than the clock's, in tests.

    Raises
    ------
    ConfigurationError
        The key cannot be used; see :func:`appliance.packs.key_ring.read_private_key`.
    PackError
        The key has expired, or the signature cannot be written.
    """
    private, public = read_private_key(private_key)
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    if moment > public.not_after:
        raise PackError(f"The key {public.key} ({public.holder}) expired on {public.not_after:%F}; use a newer key.")
    unsigned = Signature(
        pack=pack.name,
        version=pack.version,
        digest=pack.digest,
        key=public.key,
        role=public.role,
        signed_at=moment,
        signature="0" * 128,
    )
    signed = unsigned.model_copy(update={"signature": private.sign(unsigned.message()).hex()})
    text = json.dumps(signed.model_dump(mode="json"), indent=1) + "\n"
    path = pack.path / SIGNATURE
    try:
        write_durably(path, text.encode())
        path.chmod(0o644)
    except OSError as error:
        raise PackError(f"{path}: the signature cannot be written ({error.strerror}).") from error
    return signed


def trust_of(
    pack: Pack, ring: KeyRing, *, allow_unsigned: bool, reserved: Collection[str] = (), at: datetime | None = None
) -> str:
    """Say why a pack may be used, or refuse it.

    Parameters
    ----------
    pack
        Its manifest read; its other files need not have been verified yet.
    ring
        The keys that the box trusts.
    allow_unsigned
        Development mode. A signature that is there must still be good.
    reserved
        Names of shipped packs, which a vendor's key may not sign.
    at
        When the box accepted the pack; the key must not have expired by then. ``None`` is now.

    Returns
    -------
    str
        ``"signed:<key id>"`` or ``"unsigned"``.

    Raises
    ------
    PackError
        The pack is unsigned, or its signature is wrong, unknown, expired or of a role that may not sign it.
    """
    who = f"Pack {pack.name} {pack.version}"
    signature = _read(pack, who)
    if signature is None:
        if allow_unsigned:
            return UNSIGNED
        raise PackError(
            f"{who}: it is not signed; ask its maker for a signed pack, or sign it with `appliance packs sign` once "
            "you have convinced yourself of it."
        )
    key = ring.keys.get(signature.key)
    if key is None:
        raise PackError(
            f"{who}: it is signed with the key {signature.key}, which this box does not trust; if you do, put its "
            "public key file where packs.keys points."
        )
    if not key.verifies(bytes.fromhex(signature.signature), signature.message()):
        raise PackError(f"{who}: its signature is wrong (key {key.key}, {key.holder}); do not use this pack.")
    _check_claims(pack, who, signature, key, reserved)
    if (at or datetime.now(UTC)) > key.not_after:
        raise PackError(
            f"{who}: its key {key.key} ({key.holder}) expired on {key.not_after:%F}; ask for a pack with a newer "
            "signature."
        )
    return f"signed:{key.key}"


def _check_claims(pack: Pack, who: str, signature: Signature, key: PublicKey, reserved: Collection[str]) -> None:
    if signature.digest != pack.digest or (signature.pack, signature.version) != (pack.name, pack.version):
        raise PackError(f"{who}: pack.toml is not the one that was signed; do not use this pack.")
    if signature.role is not key.role:
        raise PackError(f"{who}: it was signed as {signature.role}, but its key {key.key} is a {key.role} key.")
    if key.role is Role.VENDOR and pack.name in reserved:
        raise PackError(
            f"{who}: a vendor's key may not replace the pack {pack.name} that came with the appliance; "
            "a site or release key may."
        )


def _read(pack: Pack, who: str) -> Signature | None:
    path = pack.path / SIGNATURE
    try:
        with path.open("rb") as stream:
            return Signature.model_validate_json(stream.read(_LONGEST_FILE))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PackError(f"{who}: {SIGNATURE} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise PackError(f"{who}: {SIGNATURE} is damaged; install the pack again.") from error
