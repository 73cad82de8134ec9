"""What ``pack.toml`` may say: each part as a typed model, from which the JSON Schema is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from appliance.anatomy.structures import STRUCTURES
from appliance.packs.detection_part import DetectionOutput  # noqa: TC001  # pydantic reads it
from appliance.packs.gates import Gate, Precision, TileGate  # noqa: TC001  # pydantic reads them

MANIFEST = "pack.toml"
SIGNATURE = "pack.sig"

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

    # JSON Schema knows no validator: what a segmentation pack must give, and a detection pack, is said to it here
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "if": {"properties": {"task": {"const": "detection"}}, "required": ["task"]},
            "then": {"required": ["detection"], "properties": {"structures": {"maxItems": 0}}},
            "else": {"required": ["structures"], "properties": {"structures": {"minItems": 1}}},
        },
    )

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
    tile_gates: tuple[TileGate, ...] = Field(
        default=(), title="How other shapes of a tile were held against the one in [input] patch"
    )
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
        barred = {gate.patch for gate in self.tile_gates if gate.verdict != "passed"}
        if not barred.isdisjoint(self.input.patches):
            raise ValueError("[input] patches has a shape whose gate was not passed")
        return self
