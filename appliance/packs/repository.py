"""A repository of packs as The Update Framework (TUF 1.0) describes it: plain files for any HTTP server or USB stick.

What it adds to a pack's own signature: nobody between the maker and the box can hold back newer packs unnoticed, bring
back older ones, or mix the lists of different days.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from appliance.durable import sync, write_durably
from appliance.errors import ConfigurationError, PackError
from appliance.packs.key_ring import PRIVATE_SUFFIX, load_private_key
from appliance.packs.manifest import SIGNATURE
from appliance.packs.pack import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Signed

    from appliance.packs.pack import Pack

#: The list of all packs, itself a target, so that a box knows what there is.
INDEX = "packs.json"
_ROLES = ("root", "targets", "snapshot", "timestamp")
_ROOT_DAYS = 3 * 365
_RENEW_ROOT_DAYS = 365
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same pack gives the same zip file
_BLOCK = 1 << 20


def publish(repository: Path, keys: Path, packs: Sequence[Path], *, days: int, now: datetime | None = None) -> Path:
    """Add packs to a repository, or make it, and sign its lists anew.

    Without packs the lists are signed again as they are, which a repository needs before they expire. The root metadata
    is renewed in its last year. Where the key of a list is missing, a new one is made and the root key makes the old
    one worthless: so a stolen key is replaced. Boxes follow both by themselves.

    Parameters
    ----------
    repository
        Its folder; served as it is.
    keys
        Folder of the four roles' private keys (``<role>.private.pem``); made with the repository. Keep it elsewhere.
    packs
        Folders of signed packs.
    days
        Days until boxes refuse the lists as too old.
    now
        Another time than the clock's, in tests.

    Returns
    -------
    Path
        The root metadata that boxes are given once, by a way that is trusted.

    Raises
    ------
    PackError
        A pack is not signed or its files are not whole, or the repository cannot be written.
    ConfigurationError
        The keys cannot be used.
    """
    from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    metadata, targets = repository / "metadata", repository / "targets"
    try:
        metadata.mkdir(parents=True, exist_ok=True)
        targets.mkdir(exist_ok=True)
        root_path = metadata / "1.root.json"
        if not root_path.exists() and list(metadata.glob("*.json")):
            raise PackError(f"{repository}: the repository has lists but no 1.root.json; restore it from a copy.")
        signers = _signers(keys, may_make_root=not root_path.exists())
        if not root_path.exists():
            _write(root_path, _root(signers, moment), signers["root"])
        else:
            _renew_root(metadata, signers, moment)
        version = 1 + max((int(path.name.partition(".")[0]) for path in metadata.glob("*.targets.json")), default=0)
        listed = _index(targets, metadata, version - 1)
        for folder in packs:
            entry = _add(folder, targets)
            listed = [item for item in listed if (item["name"], item["version"]) != (entry["name"], entry["version"])]
            listed.append(entry)
        index = json.dumps({"format": 1, "packs": listed}, indent=1, sort_keys=True).encode() + b"\n"
        write_durably(targets / f"{hashlib.sha256(index).hexdigest()}.{INDEX}", index)
        expires = moment + timedelta(days=days)
        files = {INDEX: TargetFile.from_data(INDEX, index)}
        for item in listed:
            files[item["file"]] = TargetFile(item["length"], {"sha256": item["sha256"]}, item["file"])
        meta = {"targets.json": MetaFile(version)}
        lists: list[tuple[str, Signed]] = [
            (f"{version}.targets.json", Targets(version, expires=expires, targets=files)),
            (f"{version}.snapshot.json", Snapshot(version, expires=expires, meta=meta)),
        ]
        for name, content in lists:
            _write(metadata / name, Metadata(content), signers[content.type])
        # The one file that is replaced, last: until then every box sees the old lists, whole.
        stamp = Timestamp(version, expires=expires, snapshot_meta=MetaFile(version))
        _write(metadata / "timestamp.json", Metadata(stamp), signers["timestamp"])
    except OSError as error:
        raise PackError(f"{repository}: the repository cannot be written ({error.strerror}).") from error
    return root_path


def _root(signers: dict[str, CryptoSigner], moment: datetime) -> Metadata[Root]:
    from tuf.api.metadata import Metadata, Root

    root = Root(expires=moment + timedelta(days=_ROOT_DAYS), consistent_snapshot=True)
    for role in _ROLES:
        root.add_key(signers[role].public_key, role)
    return Metadata(root)


def _renew_root(metadata: Path, signers: dict[str, CryptoSigner], moment: datetime) -> None:
    """Write the next root metadata when the last is in its last year, or when a list has another key now."""
    from tuf.api.metadata import Metadata, Root

    last = max(metadata.glob("*.root.json"), key=lambda path: int(path.name.partition(".")[0]))
    content = Metadata[Root].from_file(str(last))
    root = content.signed
    if signers["root"].public_key.keyid not in root.roles["root"].keyids:
        raise ConfigurationError(f"the root key does not belong to this repository ({last})")
    changed = root.expires - moment < timedelta(days=_RENEW_ROOT_DAYS)
    for role in _ROLES[1:]:
        new = signers[role].public_key
        if new.keyid not in root.roles[role].keyids:
            for old in list(root.roles[role].keyids):
                root.revoke_key(old, role)
            root.add_key(new, role)
            changed = True
    if changed:
        root.version += 1
        root.expires = moment + timedelta(days=_ROOT_DAYS)
        content.signatures.clear()
        _write(metadata / f"{root.version}.root.json", content, signers["root"])


def _write(path: Path, content: Metadata[Any], signer: CryptoSigner) -> None:
    content.sign(signer)
    write_durably(path, content.to_bytes())
    path.chmod(0o644)


def _index(targets: Path, metadata: Path, version: int) -> list[dict[str, Any]]:
    """Return what the repository lists so far."""
    from tuf.api.metadata import Metadata, Targets

    if version == 0:
        return []
    signed = Metadata[Targets].from_file(str(metadata / f"{version}.targets.json")).signed
    digest = signed.targets[INDEX].hashes["sha256"]
    found: list[dict[str, Any]] = json.loads((targets / f"{digest}.{INDEX}").read_bytes())["packs"]
    return found


def _add(folder: Path, targets: Path) -> dict[str, Any]:
    """Zip a signed pack into the repository and return its entry."""
    pack = load(folder)
    if not (folder / SIGNATURE).is_file():
        raise PackError(f"Pack {pack.name} {pack.version}: sign it before it is published (`appliance packs sign`).")
    name = f"{pack.name}-{pack.version}.zip"
    part = targets / f"{name}.part"
    _zip(pack, part)
    digest = _digest(part)
    length = part.stat().st_size
    part.replace(targets / f"{digest}.{name}")
    sync(targets)
    return {"name": pack.name, "version": pack.version, "file": name, "sha256": digest, "length": length}


def _zip(pack: Pack, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(item for item in pack.path.rglob("*") if item.is_file()):
            member = zipfile.ZipInfo(source.relative_to(pack.path).as_posix(), _ZIP_TIME)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with source.open("rb") as stream, archive.open(member, "w", force_zip64=True) as packed:
                while block := stream.read(_BLOCK):
                    packed.write(block)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _signers(keys: Path, *, may_make_root: bool) -> dict[str, CryptoSigner]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from securesystemslib.signer import CryptoSigner

    signers = {}
    for role in _ROLES:
        path = keys / f"{role}{PRIVATE_SUFFIX}"
        if not path.exists() and (may_make_root or role != "root"):  # without the root key no new key would count
            keys.mkdir(parents=True, exist_ok=True, mode=0o700)
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_durably(path, pem)  # mode 0600
        signers[role] = CryptoSigner(load_private_key(path))
    return signers
