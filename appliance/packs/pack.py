"""A model pack: a folder whose ``pack.toml`` says what the network is, what it gives, and every file's digest."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "pack.toml"
_BLOCK = 1 << 20

Precision = Literal["int8", "bf16", "f32"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]
Shape = tuple[int, int, int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Part):
    """Where the weights come from."""

    recipe: str = Field(title="Folder in the source tree that rebuilds the network")
    trained_on: tuple[str, ...] = Field(title="Scans and collections, with their licences")
    tested_on: tuple[str, ...] = Field(title="Scans that no training step saw")
    labels: str = Field(title="Who or what made the labels")
    date: str = Field(title="Day of the export", pattern=r"^\d{4}-\d{2}-\d{2}$")


class NetworkInput(_Part):
    """What the network expects.

    Axes are always those of the organ map: slices to the head, rows to the back, columns to the left. Intensities are
    Hounsfield units; clipping and scaling happen inside the graph.
    """

    orientation: Literal["head-back-left"]
    spacing_mm: Triple = Field(title="Slices, rows, columns")
    patch: Shape = Field(title="Static shape of one tile, voxels")
    overlap: float = Field(title="Share of a tile that its neighbour repeats, at least", ge=0.0, lt=1.0)
    fill_hu: int = Field(title="What lies outside the scan", ge=-1024, le=0)


class StructureOutput(_Part):
    """One label that the network gives."""

    name: str
    code: str = Field(title="SNOMED CT concept, repeated from the vocabulary")
    value: int = Field(ge=1, le=254)

    @model_validator(mode="after")
    def _known(self) -> StructureOutput:
        known = STRUCTURES.get(self.name)
        if known is None:
            raise ValueError(f"structure {self.name!r} is not in the vocabulary")
        if known.code != self.code:
            raise ValueError(f"structure {self.name!r} has code {known.code} in the vocabulary, not {self.code}")
        return self


class Network(_Part):
    """One form of the network."""

    precisions: tuple[Precision, ...] = Field(title="What it may compute in", min_length=1)
    engine: Literal["openvino", "onnxruntime"]
    path: str = Field(title="The file that the engine is given")


class TestVector(_Part):
    """A stored patch with the labels it gave when the pack was made."""

    __test__ = False

    path: str = Field(title="npz with hu, and one labels_<precision> per precision")
    minimum_agreement: float = Field(title="Least share of equal labels, background apart", gt=0, le=1)


class Accuracy(_Part):
    """Dice per structure on the held-out scans."""

    precision: Precision
    scans: int = Field(ge=1)
    dice: dict[str, float]


class Speed(_Part):
    """Seconds for one tile."""

    engine: str
    precision: Precision
    seconds_per_tile: float = Field(gt=0)
    machine: str
    date: str


class Manifest(_Part):
    """The whole of ``pack.toml``."""

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    licence: str
    licence_class: Literal["open", "non-commercial", "proprietary"]
    intended_use: str
    exclusions: tuple[str, ...]
    provenance: Provenance
    input: NetworkInput
    structures: tuple[StructureOutput, ...] = Field(min_length=1)
    networks: tuple[Network, ...] = Field(min_length=1)
    test_vectors: tuple[TestVector, ...]
    accuracy: tuple[Accuracy, ...] = ()
    speed: tuple[Speed, ...] = ()
    files: dict[str, Sha256] = Field(title="Every file of the pack but this one, with its SHA-256")

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if name.startswith("/") or "\\" in name or ".." in name.split("/") or name == MANIFEST:
                raise ValueError(f"file name {name!r} is not allowed in a pack")
        return files

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for path in [network.path for network in self.networks] + [vector.path for vector in self.test_vectors]:
            if path not in self.files:
                raise ValueError(f"{path} has no digest in [files]")
        values = [structure.value for structure in self.structures]
        names = [structure.name for structure in self.structures]
        if len(set(values)) != len(values) or len(set(names)) != len(names):
            raise ValueError("two structures share a name or a label value")
        if sorted(values) != list(range(1, len(values) + 1)):
            raise ValueError("label values must be 1, 2, 3, … in the order of the network's channels")
        return self


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
    """

    path: Path
    manifest: Manifest
    digest: str

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
        content = manifest_path.read_bytes()
    except OSError as error:
        raise PackError(f"{path}: not a model pack: {MANIFEST} cannot be read ({error.strerror}).") from error
    try:
        manifest = Manifest.model_validate(tomllib.loads(content.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackError(f"{manifest_path}: not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise PackError(f"{manifest_path}: {where}: {first['msg']}.") from error
    if verify:
        _verify(path, manifest)
    return Pack(path, manifest, "sha256:" + hashlib.sha256(content).hexdigest())


def _verify(path: Path, manifest: Manifest) -> None:
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
