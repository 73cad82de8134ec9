"""What a shadow pack would have said: compared with the active pack's map on live scans, kept, without consequence."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from appliance.packs.choice import Failure, changing

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.anatomy.organ_map import OrganMap

_log = structlog.get_logger()

_FOLDER = "shadow"
_RUNNING = "running"


def compare(active: OrganMap, shadow: OrganMap) -> dict[str, dict[str, float]]:
    """Compare two maps of one scan.

    Parameters
    ----------
    active, shadow
        Any grids of the same scan; the shadow's is brought to the active's.

    Returns
    -------
    dict[str, dict[str, float]]
        For each structure that both give: ``dice`` (1 where neither found anything), and the volumes ``active_ml`` and
        ``shadow_ml``.
    """
    from appliance.anatomy.merge import on_grid

    labels = on_grid(shadow, active)
    found = {}
    for name in active.values:
        if name not in shadow.values:
            continue
        first, second = active.labels == active.values[name], labels == shadow.values[name]
        both = np.count_nonzero(first) + np.count_nonzero(second)
        dice = 2.0 * np.count_nonzero(first & second) / both if both else 1.0
        found[name] = {
            "dice": round(float(dice), 5),
            "active_ml": round(active.volume_ml(name), 3),
            "shadow_ml": round(shadow.volume_ml(name), 3),
        }
    return found


def begin(root: Path, name: str, version: str) -> bool:
    """Note that a shadow is about to run, and say whether it may.

    One that ended its process last time is switched off: a shadow must not cost a second scan its attempt.
    """
    marker = root / _FOLDER / _RUNNING
    marker.parent.mkdir(parents=True, exist_ok=True)
    if marker.exists():
        _stop(root, name, version, "it ended the process that ran it")
        marker.unlink(missing_ok=True)
        return False
    marker.write_text(f"{name}/{version}\n", encoding="ascii")
    return True


def end(root: Path) -> None:
    """Note that the shadow has ended as it should."""
    (root / _FOLDER / _RUNNING).unlink(missing_ok=True)


def _stop(root: Path, name: str, version: str, why: str) -> None:
    _log.error("shadow_stopped", pack=name, version=version, why=why)
    with changing(root) as choice:
        if choice.shadow.get(name) == version:
            del choice.shadow[name]
            text = f"Pack {name} {version} ran as a shadow and was switched off: {why}."
            choice.failed[f"{name}/{version}"] = Failure(text=text, at=datetime.now(UTC))


def record(root: Path, name: str, version: str, against: str, structures: dict[str, dict[str, float]]) -> None:
    """Append one scan's comparison; no identifier of the scan is kept."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "against": against, "structures": structures}
    with _file(root, name, version).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def summary(root: Path, name: str, version: str) -> dict[str, Any]:
    """Summarise all comparisons of a shadow.

    Returns
    -------
    dict[str, Any]
        ``scans``, and per structure ``scans``, ``dice_mean``, ``dice_least``, ``volume_difference_ml`` (mean of shadow
        minus active).
    """
    path = _file(root, name, version)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    gathered: dict[str, list[dict[str, float]]] = {}
    scans = 0
    for line in lines:
        try:
            structures = json.loads(line)["structures"]
        except (ValueError, KeyError):
            continue  # the line that a power cut left half written
        scans += 1
        for structure, values in structures.items():
            gathered.setdefault(structure, []).append(values)
    return {
        "scans": scans,
        "structures": {
            structure: {
                "scans": len(values),
                "dice_mean": round(sum(item["dice"] for item in values) / len(values), 5),
                "dice_least": min(item["dice"] for item in values),
                "volume_difference_ml": round(
                    sum(item["shadow_ml"] - item["active_ml"] for item in values) / len(values), 3
                ),
            }
            for structure, values in gathered.items()
        },
    }


def _file(root: Path, name: str, version: str) -> Path:
    return root / _FOLDER / f"{name}-{version}.jsonl"
