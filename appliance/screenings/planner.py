"""The planner: resolves what each screening needs against the scan and the packs, and keeps a reason for every "no".

It decides twice. Before the organ map, from the header alone, so that a scan nobody can use costs no network pass; and
after it, from the image itself. Contrast is decided then, for header and image are asked together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from appliance.anatomy.structures import spoken, with_wholes
from appliance.reasons import Reason, ReasonCode
from appliance.screenings.contract import Needs, Outcome, Status
from appliance.screenings.registry import screenings
from appliance.screenings.series_choice import better_series

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan, SeriesSketch
    from appliance.screenings.contract import Screening
    from appliance.screenings.guards import ImageJudgement


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One screening with its settings, and why it cannot run, if it cannot."""

    screening: Screening
    settings: Any
    needs: Needs
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every registered screening, in the order of urgency."""

    entries: tuple[PlanEntry, ...]

    @property
    def needs_organ_map(self) -> bool:
        """Whether any screening may run at all."""
        return any(entry.reason is None for entry in self.entries)


def plan(
    scan: Scan,
    provided: Collection[str],
    settings: Any,
    study: tuple[SeriesSketch, Sequence[SeriesSketch]] | None = None,
) -> Plan:
    """Decide from the header which screenings may run.

    Parameters
    ----------
    scan
        The scan.
    provided
        Structure names that the installed packs provide.
    settings
        The ``screenings`` section of the configuration.
    study
        This series and the study's other usable ones, where there are others to choose from.
    """
    entries = []
    provided = with_wholes(provided)
    for name, screening in screenings().items():
        own = getattr(settings, name)
        needs = screening.needs(own)
        reason = _reason_from_header(scan, provided, own, needs)
        if reason is None and study is not None:
            reason = better_series(*study, needs, _unsuitable)
        entries.append(PlanEntry(screening, own, needs, reason))
    return Plan(tuple(entries))


def _reason_from_header(scan: Scan, provided: Collection[str], settings: Any, needs: Needs) -> Reason | None:
    if not settings.enabled:
        return Reason(ReasonCode.DISABLED, "switched off in the configuration")
    missing = [spoken(name) for name in (*needs.structures, *needs.one_of) if name not in provided]
    if missing:
        return Reason(ReasonCode.STRUCTURE_NOT_PROVIDED, f"no installed pack provides {', '.join(missing)}")
    return _unsuitable(scan, needs) or _age(scan, needs)


def _unsuitable(scan: Scan | SeriesSketch, needs: Needs) -> Reason | None:
    return _slice_thickness(scan, needs) or _kernel(scan, needs) or _tube_voltage(scan, needs)


def _slice_thickness(scan: Scan | SeriesSketch, needs: Needs) -> Reason | None:
    # 1 % above the limit is rounding in the header, not a thicker slice
    if needs.maximum_slice_mm is not None and scan.slice_thickness_mm > needs.maximum_slice_mm * 1.01:
        return Reason(
            ReasonCode.SLICE_TOO_THICK,
            f"{scan.slice_thickness_mm:.1f} mm slices; at most {needs.maximum_slice_mm:.1f} mm",
        )
    return None


def _kernel(scan: Scan | SeriesSketch, needs: Needs) -> Reason | None:
    family = scan.acquisition.kernel_family
    if needs.kernels and family not in needs.kernels:
        allowed = ", ".join(kernel.value for kernel in needs.kernels)
        return Reason(ReasonCode.KERNEL_TOO_SHARP, f"reconstruction kernel is {family.value}; allowed: {allowed}")
    return None


def _tube_voltage(scan: Scan | SeriesSketch, needs: Needs) -> Reason | None:
    kvp = scan.acquisition.kvp
    if needs.kvp_range is None:
        return None
    lowest, highest = needs.kvp_range
    if kvp is None:
        return Reason(
            ReasonCode.KVP_UNSUITABLE,
            f"the header has no tube voltage; {lowest:g} to {highest:g} kV is needed",
        )
    if not lowest <= kvp <= highest:
        return Reason(ReasonCode.KVP_UNSUITABLE, f"tube voltage is {kvp:g} kV; {lowest:g} to {highest:g} kV is needed")
    return None


def _age(scan: Scan, needs: Needs) -> Reason | None:
    age = scan.acquisition.patient_age_years
    if needs.age_range_years is None or age is None:
        return None
    youngest, oldest = needs.age_range_years
    if not youngest <= age <= oldest:
        # the age itself stays out of the sentence: reasons are logged and must not describe a person
        return Reason(
            ReasonCode.AGE_OUT_OF_RANGE,
            f"the patient's age is outside the range of {youngest:g} to {oldest:g} years",
        )
    return None


def run_entry(
    entry: PlanEntry,
    scan: Scan,
    anatomy: Anatomy | None,
    image: ImageJudgement | None,
) -> Outcome:
    """Run one screening of the plan, or say why not.

    Parameters
    ----------
    entry
        From :func:`plan`.
    scan
        The scan.
    anatomy
        Its organ map with what is derived from it; ``None`` only when no screening may run.
    image
        What the shared guards saw in the image.
    """
    if entry.reason is not None:
        return Outcome(Status.NOT_RUN, reason=entry.reason)
    if anatomy is None or image is None:
        raise ValueError("a screening that may run needs an organ map and the guards' judgement")
    checks: tuple[Callable[[], Outcome | None], ...] = (
        lambda: _image_quality(image),
        lambda: _image_contrast(entry.needs, image),
        lambda: _present(entry.needs, anatomy.organs),
        lambda: _reasoned(entry.needs.structures, anatomy.doubts),
        lambda: _none_left(entry.needs, anatomy),
        lambda: _reasoned((*entry.needs.structures, *entry.needs.one_of), image.streaked),
    )
    for check in checks:
        outcome = check()
        if outcome is not None:
            return outcome
    return _unsure_of_contrast(entry.screening.run(scan, anatomy, entry.settings), entry.needs, image)


def _present(needs: Needs, organs: OrganMap) -> Outcome | None:
    absent = [name for name in needs.structures if organs.volume_ml(name) == 0.0]
    if needs.one_of and all(organs.volume_ml(name) == 0.0 for name in needs.one_of):
        absent += needs.one_of
    if absent:
        text = f"not in this scan: {', '.join(spoken(name) for name in absent)}"
        return Outcome(Status.NOT_RUN, reason=Reason(ReasonCode.REGION_NOT_COVERED, text))
    return None


def _image_quality(image: ImageJudgement) -> Outcome | None:
    return Outcome(Status.ABSTAINED, reason=image.quality) if image.quality is not None else None


def _image_contrast(needs: Needs, image: ImageJudgement) -> Outcome | None:
    """Header and image together: contrast that both know of is a plain no, a contradiction is a doubt."""
    if not needs.contrast_free or image.contrast_reason is None:
        return None
    enhanced = image.contrast_reason.code is ReasonCode.CONTRAST_ENHANCED
    return Outcome(Status.NOT_RUN if enhanced else Status.ABSTAINED, reason=image.contrast_reason)


def _unsure_of_contrast(outcome: Outcome, needs: Needs, image: ImageJudgement) -> Outcome:
    """Say beside a number that needs a plain scan when nothing tells whether it is one."""
    if not needs.contrast_free or image.contrast != "unknown" or outcome.reason is not None:
        return outcome
    text = "neither the header nor the image tells whether contrast was given: the number holds for a plain scan"
    return replace(outcome, caveats=(*outcome.caveats, text))


def _none_left(needs: Needs, anatomy: Anatomy) -> Outcome | None:
    """Abstain when every structure of which one would do is doubted or absent."""
    seen = [name for name in needs.one_of if anatomy.organs.volume_ml(name) > 0.0]
    if any(name not in anatomy.doubts for name in seen):
        return None
    return _reasoned(seen, anatomy.doubts)


def _reasoned(names: Sequence[str], reasons: Mapping[str, Reason]) -> Outcome | None:
    """Abstain when there is a reason against one of the structures."""
    for name in names:
        if name in reasons:
            return Outcome(Status.ABSTAINED, reason=reasons[name])
    return None
