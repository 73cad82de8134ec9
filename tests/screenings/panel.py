"""All screenings on one patient, through the planner and the guards, as the appliance runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.plausibility import implausible
from appliance.config import Settings
from appliance.screenings.guards import judge
from appliance.screenings.planner import plan, run_entry

if TYPE_CHECKING:
    from appliance.anatomy.organ_map import OrganMap
    from appliance.scan import Scan
    from appliance.screenings.contract import Outcome


def panel(scan: Scan, organs: OrganMap, settings: Settings | None = None) -> tuple[dict[str, Outcome], Anatomy]:
    """Every screening's outcome by name, and what they shared."""
    anatomy = Anatomy(scan.volume, organs, implausible(organs))
    image = judge(scan, organs, anatomy.doubts)
    planned = plan(scan, organs.structures, (settings or Settings()).screenings)
    return {entry.screening.name: run_entry(entry, scan, anatomy, image) for entry in planned.entries}, anatomy


def numbers(outcomes: dict[str, Outcome]) -> dict[tuple[str, str | None], float]:
    """Every measurement of every screening."""
    return {(item.name, item.site): item.value for outcome in outcomes.values() for item in outcome.measurements}


def reasons(outcomes: dict[str, Outcome]) -> dict[str, str | None]:
    """Each screening's coded reason, or ``None`` where it ran."""
    return {name: outcome.reason.code.value if outcome.reason else None for name, outcome in outcomes.items()}
