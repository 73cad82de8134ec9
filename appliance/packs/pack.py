"""A model pack: a folder whose ``pack.toml`` says what the network is, what it gives, and every file's digest."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError
from appliance.packs.detection_part import DetectionOutput  # noqa: TC001  # pydantic reads it
from appliance.packs.gates import Gate, Precision  # noqa: TC001  # pydantic reads them

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "pack.toml"
SIGNATURE = "pack.sig"
UNSIGNED = "unsigned"
SHIPPED = "shipped"
_BLOCK = 1 << 20
_LONGEST_MANIFEST = 4 << 20

#: In the order of preference.
PREFERENCE: tuple[Precision, ...] = ("int8", "bf16", "f32")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
Colour = Annotated[int, Field(ge=0, le=255)]

#: For each direction, the axis of the organ map along which it lies, and whether it runs against that axis.
_DIRECTIONS = {
    "head": (0, False),
    "feet": (0, True),
    "back": (1, False),
    "front": (1, True),
    "left": (2, False),
    "right": (2, True),
}


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

    ``orientation`` names where the network's three axes grow to; ``head-back-left`` are the axes of the organ map, and
    ``spacing_mm``, ``patch`` and ``mirror_axes`` are in the network's order. Intensities are Hounsfield units; clipping
    and scaling happen inside the graph.
    """

    orientation: str = Field(title="Where the network's axes grow to, such as head-back-left")
    spacing_mm: Triple = Field(title="Along the network's axes")
    patch: Shape = Field(title="Static shape of one tile, voxels")
    patches: tuple[Shape, ...] = Field(
        default=(), title="Further shapes of a tile with which the network is as good; a box takes the quickest"
    )
    overlap: float = Field(title="Share of a tile that its neighbour repeats, at least", ge=0.0, lt=1.0)
    fill_hu: int = Field(title="What lies outside the scan", ge=-32768, le=32767)
    weighting: Literal["ramp", "gaussian", "gaussian-centred", "constant"] = Field(
        default="ramp", title="How a tile's weight falls towards its rim: our own, nnU-Net's, MONAI's, not at all"
    )
    tiling: Literal["even", "stepped"] = Field(
        default="even", title="Tiles evenly spread, or as MONAI a whole step apart with the last one drawn back"
    )
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = Field(
        default=(), title="Axes over whose mirrorings answers are averaged; each doubles the work"
    )
    resampling: Literal["area", "nnunet", "monai"] = Field(
        default="area",
        title="Anti-aliased linear, nnU-Net's cubic spline on nnU-Net's grid, or MONAI's plain linear on MONAI's grid",
    )
    clip_hu: tuple[float, float] | None = Field(default=None, title="Limits applied before resampling")
    skip_air: bool = Field(default=True, title="Spend no tile on the room around the patient")
    padding: Literal["fill", "mirror"] = Field(
        default="fill", title="What a tile sees beyond the scan: fill_hu, or the scan's mirror image"
    )
    region: tuple[str, ...] = Field(
        default=(), title="Structures of other packs; the network sees only the box around them, and runs after those"
    )
    region_margin_mm: float = Field(default=20.0, title="Added around that box on every side", ge=0, le=500)

    @field_validator("orientation")
    @classmethod
    def _three_axes(cls, orientation: str) -> str:
        words = orientation.split("-")
        if len(words) != 3 or {_DIRECTIONS.get(word, (None,))[0] for word in words} != {0, 1, 2}:
            raise ValueError(f"{orientation!r} does not name three axes, such as head-back-left")
        return orientation

    @field_validator("region")
    @classmethod
    def _known_structures(cls, region: tuple[str, ...]) -> tuple[str, ...]:
        for name in region:
            if name not in STRUCTURES:
                raise ValueError(f"structure {name!r} is not in the vocabulary")
        return region

    @property
    def axes(self) -> tuple[Shape, tuple[bool, bool, bool]]:
        """For each axis of the network, the axis of the organ map, and whether it runs against that axis."""
        (a, x), (b, y), (c, z) = (_DIRECTIONS[word] for word in self.orientation.split("-"))
        return (a, b, c), (x, y, z)

    @property
    def backwards(self) -> tuple[bool, bool, bool]:
        """For each axis of the organ map, whether the network's axis runs against it."""
        axes, flips = self.axes
        return flips[axes.index(0)], flips[axes.index(1)], flips[axes.index(2)]


class Intensity(_Part):
    """What the graph does with Hounsfield units before its first convolution; for people and for the import's proof."""

    kind: Literal["window", "nnunet-ct", "network"] = Field(
        title="Clipping to a window; nnU-Net's CT normalisation (clip, subtract the mean, divide); the network's own"
    )
    low_hu: float | None = Field(None, title="Lower end of the clipping")
    high_hu: float | None = Field(None, title="Upper end of the clipping")
    mean_hu: float | None = Field(None, title="Subtracted")
    deviation_hu: float | None = Field(None, title="Divided by", gt=0)


class StructureOutput(_Part):
    """One label that the network gives."""

    name: str
    code: str = Field(title="SNOMED CT concept, repeated from the vocabulary")
    value: int = Field(ge=1, le=254)
    channels: tuple[Annotated[int, Field(ge=1, le=254)], ...] = Field(
        default=(), title="Channels of the network that mean it; when absent, the channel numbered as the value"
    )
    meaning: str | None = Field(None, title="Meaning of the concept; the vocabulary's where it is absent")
    rgb: tuple[Colour, Colour, Colour] | None = Field(None, title="Colour on a screen; the vocabulary's when absent")

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
    dice: dict[str, float] = Field(title="Structure, or a union named by the pack, to mean Dice")


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
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    licence: str
    licence_class: Literal["open", "non-commercial", "restricted"] = Field(
        title="open: any use; non-commercial: no paid service; restricted: read the licence before any use"
    )
    intended_use: str
    exclusions: tuple[str, ...]
    provenance: Provenance
    task: Literal["segmentation", "detection"] = Field(
        default="segmentation", title="Whether the network labels voxels or finds boxes"
    )
    input: NetworkInput
    intensity: Intensity | None = None
    structures: tuple[StructureOutput, ...] = Field(default=(), title="What a segmentation pack gives, at least one")
    detection: DetectionOutput | None = Field(default=None, title="What a detection pack gives, and how")
    networks: tuple[Network, ...] = Field(min_length=1)
    test_vectors: tuple[TestVector, ...]
    accuracy: tuple[Accuracy, ...] = ()
    speed: tuple[Speed, ...] = ()
    gates: tuple[Gate, ...] = Field(default=(), title="How each reduced precision was held against single precision")
    files: dict[str, Sha256] = Field(title="Every file of the pack but this one, with its SHA-256")

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if name.startswith("/") or "\\" in name or ".." in name.split("/") or name in {MANIFEST, SIGNATURE}:
                raise ValueError(f"file name {name!r} is not allowed in a pack")
        return files

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for path in [network.path for network in self.networks] + [vector.path for vector in self.test_vectors]:
            if path not in self.files:
                raise ValueError(f"{path} has no digest in [files]")
        if self.task == "detection" and (self.detection is None or self.structures):
            raise ValueError("a detection pack has a part [detection] and no structures")
        if self.task == "segmentation" and (self.detection is not None or not self.structures):
            raise ValueError("a segmentation pack has at least one structure and no part [detection]")
        values = [structure.value for structure in self.structures]
        names = [structure.name for structure in self.structures]
        if len(set(values)) != len(values) or len(set(names)) != len(names):
            raise ValueError("two structures share a name or a label value")
        if sorted(values) != list(range(1, len(values) + 1)):
            raise ValueError("label values must be 1, 2, 3, … in the order of the network's channels")
        channels = [channel for structure in self.structures for channel in structure.channels or (structure.value,)]
        if len(set(channels)) != len(channels):
            raise ValueError("two structures claim the same channel of the network")
        gated = [gate.precision for gate in self.gates]
        if len(set(gated)) != len(gated):
            raise ValueError("a precision has two gates")
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
