"""The pages' HTML: templates with the words of a language, and small texts that they are made of."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.board import words
from appliance.board.overview import waiting
from appliance.reasons import Reason, ReasonCode
from appliance.results.objects import words as of_results
from appliance.results.report import ScreeningResult
from appliance.screenings.contract import Outcome, Status
from appliance.store.lifecycle import ScanState

if TYPE_CHECKING:
    from appliance.board.overview import ScanView
    from appliance.board.words import Language
    from appliance.health.model import Queue

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
#: What a status looks like without its colour.
SIGNS = {
    Status.FINDING: "◆",
    Status.NORMAL: "✓",
    Status.ABSTAINED: "?",
    Status.NOT_RUN: "–",
    Status.FAILED: "✕",
}
_STATUS_SENTENCES = {status: f"sign_{status.value}" for status in SIGNS}
_ENGLISH_ONLY = "en"
_MOST_REASONS = 2


class Pages:
    """Renders templates.

    Parameters
    ----------
    box_name
        Name of the box, in every page's heading.
    has_destinations
        Whether results are sent anywhere.
    """

    def __init__(self, box_name: str, *, has_destinations: bool = False) -> None:
        self._common = {"box_name": box_name, "has_destinations": has_destinations, "languages": words.LANGUAGES}
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, template: str, language: Language, **values: Any) -> str:
        """Return a page.

        Parameters
        ----------
        template
            Its file.
        language
            Of its words.
        **values
            What it shows.
        """
        tongue = Tongue(language)
        return self._templates.get_template(template).render(language=language, t=tongue, **self._common, **values)


def _example(status: Status) -> ScreeningResult:
    answered = status in {Status.FINDING, Status.NORMAL}
    reason = None if answered else Reason(ReasonCode.DISABLED, "")
    return ScreeningResult("", Outcome(status, reason=reason), 0.0)


class Tongue:
    """The words of one language, as templates call them."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def say(self, name: str, /, **facts: object) -> str:
        """Return a sentence."""
        return words.say(name, self._language, **facts)

    @property
    def translated(self) -> bool:
        """Whether the box's own sentences, which are English, are shown beside."""
        return self._language != _ENGLISH_ONLY

    def title(self, screening: str) -> str:
        """Return a screening's title."""
        return of_results.title(screening, self._language)

    def urgency(self, urgency: str) -> str:
        """Return how soon, in a word."""
        return words.URGENCIES[urgency][self._language]

    def status(self, result: ScreeningResult) -> str:
        """Return an outcome in a word or two."""
        return of_results.status_word(result, self._language)

    def status_alone(self, status: str) -> str:
        """Return the same of a status by itself."""
        return of_results.status_word(_example(Status(status)), self._language)

    def sign(self, result: ScreeningResult) -> str:
        """Return the outcome's sign."""
        return SIGNS[result.outcome.status]

    def signs(self) -> list[tuple[str, str, str]]:
        """Return each status with its sign and what it means."""
        return [(status.value, sign, self.say(_STATUS_SENTENCES[status])) for status, sign in SIGNS.items()]

    def detail(self, result: ScreeningResult) -> str:
        """Return the numbers, or why there are none."""
        reason = result.outcome.reason
        return words.why(reason, self._language) if reason else of_results.detail(result, self._language)

    def original(self, result: ScreeningResult) -> str:
        """Return the box's own English sentence, where the page's is another."""
        if not self.translated:
            return ""
        return result.outcome.reason.text if result.outcome.reason else result.outcome.summary

    def hint(self, result: ScreeningResult) -> str:
        """Return what can be done about a missing answer."""
        return words.hint(result.outcome.reason, self._language) if result.outcome.reason else ""

    def label(self, scan: ScanView) -> str:
        """Return what people call a scan: name, else accession number, else its number here."""
        row = scan.row
        number = self.say("scan", number=row.id)
        if scan.patient_name:
            return f"{scan.patient_name} · {number}"
        return f"{self.say('accession', number=row.accession_number)} · {number}" if row.accession_number else number

    def short_label(self, scan: ScanView) -> str:
        """Return the first part of the label, without the number where something else comes first."""
        return self.label(scan).rpartition(" · ")[0] or self.label(scan)

    def state(self, scan: ScanView) -> str:
        """Return where a scan stands."""
        return words.STATES[scan.row.state][self._language]

    def scan_reason(self, scan: ScanView) -> str:
        """Return why a scan was refused, failed or parked."""
        return words.why(scan.row.reason, self._language) if scan.row.reason else ""

    def scan_original(self, scan: ScanView) -> str:
        """Return the same in the box's own English sentence, where that says more."""
        said = self.scan_reason(scan)
        return scan.row.reason.text if scan.row.reason and scan.row.reason.text != said else ""

    def scan_hint(self, scan: ScanView) -> str:
        """Return what can be done about it."""
        return words.hint(scan.row.reason, self._language) if scan.row.reason else ""

    def unanswered(self, scan: ScanView) -> str:
        """Return which answers are missing and why, the most common reason first."""
        by_reason: dict[str, list[str]] = {}
        for result in scan.unanswered:
            by_reason.setdefault(self.detail(result), []).append(self.title(result.name))
        texts = []
        for reason, titles in sorted(by_reason.items(), key=lambda item: -len(item[1]))[:_MOST_REASONS]:
            every = len(titles) == len(scan.results)
            texts.append(f"{self.say('every_screening') if every else self.titles(titles)}: {reason}")
        return "; ".join(texts) + ("; …" if len(by_reason) > _MOST_REASONS else "")

    def titles(self, titles: list[str]) -> str:
        """Return titles as a list in words."""
        return ("、" if self._language == "zh" else ", ").join(titles)

    def queue(self, queue: Queue | None) -> str:
        """Return what waits."""
        if queue is None:
            return "–"
        arriving, to_screen = queue.by_state[ScanState.RECEIVING], waiting(queue)
        if not arriving and not to_screen:
            return self.say("queue_none")
        return self.say("queue_counts", arriving=arriving, waiting=to_screen)

    def clock(self, moment: float | None) -> str:
        """Return a time of today as hours and minutes, another one with its date."""
        if moment is None:
            return "–"
        then, now = time.localtime(moment), time.localtime()
        return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)

    def machine_time(self, moment: float) -> str:
        """Return a time for programs (ISO 8601)."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
