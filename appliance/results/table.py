"""The report on a terminal: a table a radiographer understands, made from the public JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.results.report import NOTICE
from appliance.screenings.registry import screenings

if TYPE_CHECKING:
    from rich.console import Console

_STATUS_STYLE = {
    "finding": "bold red",
    "normal": "green",
    "not_run": "yellow",
    "abstained": "yellow",
    "failed": "magenta",
}
_STATUS_WORDS = {
    "finding": "FINDING",
    "normal": "normal",
    "not_run": "not run",
    "abstained": "abstained",
    "failed": "failed",
}


def title_of(name: str) -> str:
    """Return a screening's title for people; a name from an older version is shown as it is."""
    screening = screenings().get(name)
    return screening.title if screening is not None else name


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print one report.

    Parameters
    ----------
    report
        As :meth:`appliance.results.report.Report.to_json` gives it.
    console
        Where to print.
    """
    from rich.markup import escape
    from rich.table import Table

    scan = report["scan"]
    kernel = escape(scan.get("kernel") or "unknown")  # from the header: brackets in it are not markup
    spacing = " × ".join(f"{value:g}" for value in scan["spacing_mm"])
    console.print(
        f"CT, {scan['slices']} slices of {spacing} mm, kernel {kernel}, "
        f"contrast: {scan['contrast']}, covers: {', '.join(map(_plain, scan['coverage'])) or 'not judged'}",
        highlight=False,
    )
    table = Table(show_lines=False, pad_edge=False)
    for heading in ("Screening", "Result", "What was found, or why not"):
        table.add_column(heading, overflow="fold")
    for item in report["screenings"]:
        status = item["status"]
        detail = item["summary"] or (item["reason"] or {}).get("text", "")
        detail += "".join(f"\nnote: {caveat}" for caveat in item["caveats"])
        table.add_row(title_of(item["name"]), f"[{_STATUS_STYLE[status]}]{_STATUS_WORDS[status]}[/]", escape(detail))
    console.print(table)
    for note in scan["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    packs = ", ".join(
        f"{pack['name']} {pack['version']} ({pack['precision']} on {pack['device']}"
        + (", WITHOUT A SIGNATURE)" if pack.get("trust") == "unsigned" else ")")
        for pack in report["packs"]
    )
    seconds = report["timings"].get("total_s", 0.0)
    console.print(f"networks: {packs or 'none were needed'}; {seconds:.0f} s", highlight=False)
    console.print(NOTICE, style="yellow", highlight=False)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def sentences(report: dict[str, Any]) -> list[str]:
    """Return one sentence per screening: that it ran and with what result, or why not."""
    lines = []
    for item in report["screenings"]:
        title, status = title_of(item["name"]), item["status"]
        if status in {"finding", "normal"}:
            lines.append(f"{title} ran ({_STATUS_WORDS[status]}): {item['summary']}.")
        else:
            reason = item["reason"]
            said = {"not_run": "did not run", "abstained": "ran and gave no number"}.get(status, "failed")
            lines.append(f"{title} {said}: {reason['text'].rstrip('.')} [{reason['code']}].")
    return lines
