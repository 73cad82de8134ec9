"""A report without any of the machinery that makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.store.database import Store


def report(**changes: Any) -> dict[str, Any]:
    """A report as the screening pipeline would write it."""
    return {
        "appliance": {"version": "1.0", "config_digest": "sha256:0"},
        "scan": {"slices": 3, "revision": 1},
        "packs": [],
        "screenings": [
            {
                "name": "emphysema",
                "status": "finding",
                "urgency": "routine",
                "reason": None,
                "seconds": 0.5,
                "summary": "LAA-950 12 %",
                "measurements": [{"name": "laa950_percent", "value": 12.0, "unit": "%", "site": None, "code": None}],
                "findings": [
                    {"code": "SCT:87433001", "meaning": "Emphysema", "site": "lung", "box_mm": [[0, 0, 0], [1, 1, 1]]}
                ],
            },
            {
                "name": "other",
                "status": "not_run",
                "urgency": "routine",
                "reason": {"code": "slice_too_thick", "text": "5 mm slices; at most 3 mm"},
                "seconds": 0.0,
                "summary": "",
                "measurements": [],
                "findings": [],
            },
        ],
        "timings": {"total_s": 1.5},
        **changes,
    }


def dispositions(store: Store) -> dict[str, int]:
    """How many spooled files have each disposition."""
    rows = store.rows("SELECT disposition, count(*) AS number FROM instances GROUP BY disposition")
    return {row["disposition"]: row["number"] for row in rows}


def measured(store: Store, name: str) -> list[tuple[int, str | None, float]]:
    """``(scan id, site, value)`` of the measurements with a name."""
    rows = store.rows("SELECT scan_id, site, value FROM measurements WHERE name = ? ORDER BY id", (name,))
    return [(row["scan_id"], row["site"], row["value"]) for row in rows]


def events(store: Store) -> list[int]:
    """Ids of the events that are kept, whether they were published or not."""
    return [row["id"] for row in store.rows("SELECT id FROM events ORDER BY id")]
