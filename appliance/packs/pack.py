"""A model pack: a folder whose ``pack.toml`` says what the network is, what it gives, and every file's digest."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from appliance.errors import PackError
from appliance.packs.manifest import MANIFEST, PREFERENCE, SIGNATURE, Manifest

if TYPE_CHECKING:
    from pathlib import Path

UNSIGNED = "unsigned"
SHIPPED = "shipped"
_BLOCK = 1 << 20
_LONGEST_MANIFEST = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """A pack on disk, every file of it verified.

    Attributes
    ----------
    path
        Its folder.
    manifest
        What ``pack.toml`` says.
    digest
        ``"sha256:…"`` over the bytes of ``pack.toml``, which holds the digests of all other files.
    trust
        Why it may be used: ``"signed:<key id>"``, ``"shipped"`` or ``"unsigned"``.
    """

    path: Path
    manifest: Manifest
    digest: str
    trust: str = UNSIGNED

    @property
    def name(self) -> str:
        """Name of the pack."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version of the pack."""
        return self.manifest.version

    @property
    def structures(self) -> dict[str, int]:
        """Structure name to label value."""
        return {structure.name: structure.value for structure in self.manifest.structures}

    @property
    def provides(self) -> tuple[str, ...]:
        """Names that screenings can ask for: structures, or the findings of a detection pack."""
        found = self.manifest.detection
        return tuple(item.name for item in found.classes) if found is not None else tuple(self.structures)

    def require(self, task: str) -> None:
        """See that the pack does what it is wanted for.

        Raises
        ------
        PackError
            It does something else.
        """
        if self.manifest.task != task:
            raise PackError(
                f"Pack {self.name} {self.version} is for {self.manifest.task}, and cannot be used for {task}."
            )

    @property
    def channel_labels(self) -> tuple[int, ...]:
        """Label value of each of 256 channels of the network; a channel that no structure claims is background."""
        labels = [0] * 256
        for structure in self.manifest.structures:
            for channel in structure.channels or (structure.value,):
                labels[channel] = structure.value
        return tuple(labels)

    def automatic(self, engine: str) -> tuple[str, ...]:
        """Precisions that may be chosen by themselves for an engine, the quickest first.

        One whose gate says anything but "passed" is not among them; one without a gate is its maker's word.
        """
        barred = {gate.precision for gate in self.manifest.gates if gate.verdict != "passed"}
        return tuple(
            precision
            for precision in PREFERENCE
            if precision not in barred and self.network(engine, precision) is not None
        )

    def network(self, engine: str, precision: str) -> Path | None:
        """Return the file to give an engine for a precision, or ``None`` when the pack has none."""
        for network in self.manifest.networks:
            if network.engine == engine and precision in network.precisions:
                return self.path / network.path
        return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def load(path: Path, *, verify: bool = True) -> Pack:
    """Read a pack and verify every file in it.

    Parameters
    ----------
    path
        Its folder.
    verify
        Compare each file with its digest; leave it on outside tools that build packs.

    Raises
    ------
    PackError
        The pack is missing, wrong, incomplete or altered; the sentence names the file.
    """
    manifest_path = path / MANIFEST
    try:
        with manifest_path.open("rb") as stream:
            content = stream.read(_LONGEST_MANIFEST + 1)
    except OSError as error:
        raise PackError(f"{path}: not a model pack: {MANIFEST} cannot be read ({error.strerror}).") from error
    if len(content) > _LONGEST_MANIFEST:
        raise PackError(f"{manifest_path}: larger than {_LONGEST_MANIFEST >> 20} MiB; no pack needs that.")
    try:
        manifest = Manifest.model_validate(tomllib.loads(content.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackError(f"{manifest_path}: not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise PackError(f"{manifest_path}: {where}: {first['msg']}.") from error
    if verify:
        verify_files(path, manifest)
    return Pack(path, manifest, "sha256:" + hashlib.sha256(content).hexdigest())


def verify_files(path: Path, manifest: Manifest) -> None:
    """Compare every file of a pack's folder with the manifest, in blocks, so that memory does not grow with the pack.

    Raises
    ------
    PackError
        A file is missing, altered, not listed, or a link; the sentence names it.
    """
    _refuse_strangers(path, manifest)
    for name, expected in manifest.files.items():
        try:
            found = sha256_of(path / name)
        except OSError as error:
            raise PackError(
                f"Pack {manifest.name} {manifest.version}: {name} cannot be read ({error.strerror}); "
                "install the pack again."
            ) from error
        if found != expected:
            raise PackError(
                f"Pack {manifest.name} {manifest.version}: {name} was altered or damaged (its SHA-256 is not the one "
                f"in {MANIFEST}); install the pack again."
            )


def _refuse_strangers(path: Path, manifest: Manifest) -> None:
    known = set(manifest.files) | {MANIFEST, SIGNATURE}
    for found in sorted(path.rglob("*")):
        name = found.relative_to(path).as_posix()
        if found.is_symlink():
            raise PackError(f"Pack {manifest.name} {manifest.version}: {name} is a link; a pack holds its own files.")
        if not found.is_dir() and name not in known:
            raise PackError(
                f"Pack {manifest.name} {manifest.version}: {name} is not listed in {MANIFEST}; remove it, or install "
                "the pack again."
            )
