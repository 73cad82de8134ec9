"""The part of a manifest that says how boxes are read out of a detection network's answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from appliance.anatomy.detectables import DETECTABLES

_Positive = Annotated[float, Field(gt=0)]
_Step = Annotated[int, Field(ge=1, le=512)]


class DetectedClass(BaseModel):
    """One kind of finding that the network tells apart, in the order of its classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    code: str = Field(title="SNOMED CT concept, repeated from the vocabulary")

    @model_validator(mode="after")
    def _known(self) -> DetectedClass:
        known = DETECTABLES.get(self.name)
        if known is None:
            raise ValueError(f"finding {self.name!r} is not in the vocabulary")
        if known.code != self.code:
            raise ValueError(f"finding {self.name!r} has code {known.code} in the vocabulary, not {self.code}")
        return self


class DetectionOutput(BaseModel):
    """Anchors and selection of a one-stage detector (RetinaNet: Lin et al., ICCV 2017).

    Lengths are voxels along the network's axes. The network answers ``(1, anchors, classes + 6)``: for each level, each
    place in C order and each anchor, one logit a class, then the shift of the centre and the logarithm of the
    growth along the three axes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[DetectedClass, ...] = Field(min_length=1, max_length=64)
    strides: tuple[tuple[_Step, _Step, _Step], ...] = Field(
        title="For each level, voxels between neighbouring places", min_length=1, max_length=8
    )
    anchor_sizes: tuple[tuple[tuple[_Positive, _Positive, _Positive], ...], ...] = Field(
        title="For each level, the sizes of the anchors at every place, voxels", min_length=1, max_length=8
    )
    box_weights: tuple[_Positive, _Positive, _Positive, _Positive, _Positive, _Positive] = Field(
        default=(1.0,) * 6, title="What the network's shifts and growths are divided by"
    )
    divisible_by: tuple[_Step, _Step, _Step] = Field(title="The scan is padded behind to multiples of this, voxels")
    score_threshold: float = Field(title="Boxes must score more", ge=0, lt=1)
    nms_threshold: float = Field(title="Of two boxes that overlap more than this, the lower is dropped", gt=0, le=1)
    candidates_per_level: int = Field(title="Boxes taken from a level, the best first", ge=1, le=100_000)
    most_detections: int = Field(title="Boxes of a scan, the best first", ge=1, le=10_000)

    @model_validator(mode="after")
    def _consistent(self) -> DetectionOutput:
        if len(self.strides) != len(self.anchor_sizes):
            raise ValueError("strides and anchor_sizes speak of different numbers of levels")
        if len({len(level) for level in self.anchor_sizes}) != 1 or not self.anchor_sizes[0]:
            raise ValueError("every level needs the same number of anchors, at least one")
        if len({item.name for item in self.classes}) != len(self.classes):
            raise ValueError("two classes share a name")
        return self
