"""What a screening is: a pure function from a scan and its organ map to findings, with declared needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from appliance.anatomy.derived import Anatomy
    from appliance.reasons import Reason
    from appliance.scan import KernelFamily, Scan


class Status(StrEnum):
    """How a screening ended."""

    FINDING = "finding"
    NORMAL = "normal"
    NOT_RUN = "not_run"
    ABSTAINED = "abstained"
    FAILED = "failed"


class Urgency(StrEnum):
    """How soon a person should look."""

    ROUTINE = "routine"
    SOON = "soon"
    URGENT = "urgent"


class ScreeningSettings(BaseModel):
    """Base of every screening's part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, title="Run this screening")


@dataclass(frozen=True, slots=True)
class Needs:
    """What must hold before a screening may run; checked by the planner, never by the screening itself.

    Attributes
    ----------
    structures
        Names from the structure vocabulary that an installed pack must provide, and the scan must show.
    one_of
        Names that a pack must provide and of which the scan must show at least one, such as a pair of organs. The
        screening itself leaves out what is absent or doubted, and says so.
    contrast_free
        The scan must be without intravenous contrast.
    maximum_slice_mm
        Largest slice thickness or spacing; ``None`` for any.
    preferred_slice_mm
        Slice thickness to choose among several reconstructions, before thicker ones and those farther from it;
        ``None`` for the thinnest.
    kernels
        Kernel families that are allowed; empty for any.
    kvp_range
        Lowest and highest tube voltage, kV; ``None`` for any.
    age_range_years
        Youngest and oldest patient; ``None`` for any. An unknown age passes.
    """

    structures: tuple[str, ...]
    contrast_free: bool = True
    maximum_slice_mm: float | None = None
    preferred_slice_mm: float | None = None
    kernels: tuple[KernelFamily, ...] = ()
    kvp_range: tuple[float, float] | None = None
    age_range_years: tuple[float, float] | None = None
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number with its name, unit and, where the standard has one, code.

    Attributes
    ----------
    name
        From ``docs/interfaces.md``.
    value
        The number; always finite.
    unit
        UCUM.
    site
        Structure name the number belongs to, or ``None`` for the whole.
    code
        ``"SCHEME:value"`` where the DICOM dictionary has a concept for it.
    """

    name: str
    value: float
    unit: str
    site: str | None = None
    code: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``measurements`` in the public JSON."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "site": self.site,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at, with where to look.

    Attributes
    ----------
    code, meaning
        Coded finding, ``"SCT:87433001"``.
    site
        Structure name.
    box_mm
        Two opposite corners in LPS mm.
    key_slice
        Index of the slice that shows it best.
    """

    code: str
    meaning: str
    site: str
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    key_slice: int


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the key image shows: one plane, the mask behind the number, and the words beside it.

    Attributes
    ----------
    key_slice
        Index of the plane along ``axis`` of the scan's volume.
    mask
        Boolean, shape of that plane (the volume's two other axes, in their order): what was counted.
    outline
        Boolean, same shape: the organ, drawn as an outline. ``None`` when the mask is the organ.
    window_hu
        Lower and upper end of the display window, HU.
    lines
        The number and the threshold in words, one line each.
    axis
        Axis of the volume that the plane is across: 0 for a slice as scanned, 1 for a row (a coronal picture of most
        scans), 2 for a column (a sagittal one).
    strokes
        Straight lines to draw, such as a diameter: two ends each, as fractional indices into the plane.
    """

    key_slice: int
    mask: NDArray[np.bool_]
    outline: NDArray[np.bool_] | None
    window_hu: tuple[float, float]
    lines: tuple[str, ...]
    axis: int = 0
    strokes: tuple[tuple[tuple[float, float], tuple[float, float]], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one screening concluded.

    Attributes
    ----------
    status, urgency, reason
        A reason is there exactly when the status is neither ``finding`` nor ``normal``.
    summary
        One line for people; empty when nothing was measured.
    measurements, findings, evidence
        The numbers, where to look, and what the key image shows.
    caveats
        Sentences that qualify the number, such as a slice thickness above the preferred one.
    """

    status: Status
    summary: str = ""
    urgency: Urgency = Urgency.ROUTINE
    reason: Reason | None = None
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()
    evidence: Evidence | None = None
    caveats: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        explained = self.status in {Status.NOT_RUN, Status.ABSTAINED, Status.FAILED}
        if explained != (self.reason is not None):
            raise ValueError("a screening gives either a result or a reason, never both and never neither")


class Screening(Protocol):
    """One screening; an instance named ``SCREENING`` in a module of this package."""

    name: str
    title: str
    order: int
    settings_model: type[ScreeningSettings]

    def needs(self, settings: Any) -> Needs:
        """Return what must hold for this screening, given its settings."""
        ...

    def run(self, scan: Scan, anatomy: Anatomy, settings: Any) -> Outcome:
        """Answer the question; pure, and never raises for a bad scan: it abstains."""
        ...
