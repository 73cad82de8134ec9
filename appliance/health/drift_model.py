"""The message of drift: who comes, how they are scanned and what is found, as counts that name nobody.

Every key and every word is of a closed vocabulary, a name that the site has configured, or a pseudonym that only this
box can make; no text of a DICOM header fits.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, WithJsonSchema, model_validator

from appliance.health.drift_bins import MEASUREMENT_EDGES, InputName
from appliance.health.model import ConfiguredName, Count, Message
from appliance.reasons import ReasonCode  # noqa: TC001  # pydantic reads the annotations at run time
from appliance.scan import ContrastTag, KernelFamily  # noqa: TC001
from appliance.screenings.contract import Status  # noqa: TC001
from appliance.screenings.registry import screenings
from appliance.store.lifecycle import ScanState  # noqa: TC001


def _one_of(words: tuple[str, ...]) -> AfterValidator:
    def check(word: str) -> str:
        if word not in words:
            raise ValueError(f"{word!r} is not in the vocabulary")
        return word

    return AfterValidator(check)


_SCREENINGS = tuple(sorted(screenings()))
_MEASUREMENTS = tuple(sorted(MEASUREMENT_EDGES))

ScreeningName = Annotated[str, _one_of(_SCREENINGS), WithJsonSchema({"type": "string", "enum": list(_SCREENINGS)})]
MeasurementName = Annotated[
    str, _one_of(_MEASUREMENTS), WithJsonSchema({"type": "string", "enum": list(_MEASUREMENTS)})
]


def _real_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_day)]
Pseudonym = Annotated[str, Field(pattern=r"^m-[0-9a-f]{8}$")]


class Manufacturer(StrEnum):
    """Who made a scanner, told from its header; what is not in the list is ``other``."""

    ANKE = "anke"
    CANON = "canon"
    FUJIFILM = "fujifilm"
    GE = "ge"
    MINFOUND = "minfound"
    NEUSOFT = "neusoft"
    PHILIPS = "philips"
    SAMSUNG = "samsung"
    SIEMENS = "siemens"
    UNITED_IMAGING = "united_imaging"
    OTHER = "other"
    UNKNOWN = "unknown"


class Histogram(Message):
    """How many values fall between fixed edges."""

    edges: tuple[float, ...]
    counts: tuple[Count, ...] = Field(title="One more than edges: below the first, between, from the last on")

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError("there must be one more count than edges")
        return self


class ScreeningCounts(Message):
    """How one screening ended."""

    status: dict[Status, Count]
    reasons: dict[ReasonCode, Count] = Field(title="Why it was not run, abstained or failed")


class SeriesCount(Message):
    """How many series came to an end in one way, over all scanners."""

    state: ScanState
    reason: ReasonCode | None
    count: Count


class Group(Message):
    """The screened scans of one scanner and one model of it."""

    scanner: ConfiguredName = Field(title="receive.peers.name of the sender; other: of small groups taken together")
    manufacturer: Manufacturer
    model: Pseudonym | None = Field(title="Stands for the header's model name; null where there is none or several")
    studies: Count
    scans: Count
    kernel_family: dict[KernelFamily, Count]
    contrast: dict[ContrastTag, Count]
    inputs: dict[InputName, Histogram]
    screenings: dict[ScreeningName, ScreeningCounts]
    measurements: dict[MeasurementName, Histogram]


class Drift(Message):
    """``appliances/<box>/drift``, retained, once a day: the local days since the message before."""

    schema_version: Literal[1] = 1
    bins_version: Literal[1] = 1
    made_at: AwareDatetime
    first_day: Day
    last_day: Day
    least_studies: Count = Field(title="No group and no histogram stands for fewer studies or values than this")
    left_out: bool = Field(title="Whether scans are missing here because their group was too small")
    series: tuple[SeriesCount, ...]
    groups: tuple[Group, ...]
