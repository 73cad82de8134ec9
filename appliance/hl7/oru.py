"""Unsolicited observation messages, ORU^R01 (HL7 v2.5.1 Chapter 7): a scan's result, or one alert of it.

A message is a function of the stored result, the header and the settings, so that one that is sent again is the same
message under the same control id.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from appliance.hl7.er7 import SEGMENT_END, components, escape, header, repetitions, segment
from appliance.results.objects import codes
from appliance.results.objects.words import detail, notice, title
from appliance.screenings.contract import Status, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.hl7.patient import PatientHeader
    from appliance.hl7.routing import Routing
    from appliance.results.objects.codes import Concept
    from appliance.results.report import ScreeningResult

_DIAGNOSTIC_IMAGING = codes.Concept("LN", "18748-4", "Diagnostic imaging study")
_CODING_SYSTEMS = {"SCT": "SCT", "LN": "LN", "DCM": "DCM", "UCUM": "UCUM"}  # HL7 Table 0396
_ABNORMAL = {Urgency.ROUTINE: "A", Urgency.SOON: "A", Urgency.URGENT: "AA"}  # HL7 Table 0078
_PRELIMINARY, _NO_RESULT = "P", "X"  # HL7 Table 0085
_NULL = '""'  # what must be there and is not known (Section 2.5.3)
_LONGEST_CONTROL_ID = 20
_LONGEST_VALUE = 200


class MessageInvalidError(ApplianceError):
    """A message that HL7's own tables do not allow."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a message is about.

    Attributes
    ----------
    series_instance_uid, revision
        The scan.
    at
        When its result was stored, or the alert raised; Unix time.
    screenings
        What is told of.
    alert
        Step of an alert, ``raised`` or ``escalated``; ``None`` for a result.
    """

    series_instance_uid: str
    revision: int
    at: float
    screenings: tuple[ScreeningResult, ...]
    alert: str | None = None


def control_id(subject: Subject, destination: str, sender: str) -> str:
    """Return MSH-10: the same for the same thing to the same destination, however often it is made.

    Parameters
    ----------
    subject
        What the message is about.
    destination
        Name of the destination.
    sender
        Name of the box.
    """
    names = [result.name for result in subject.screenings] if subject.alert else []
    parts = (sender, destination, subject.series_instance_uid, str(subject.revision), subject.alert or "", *names)
    name = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.sha256(name.encode()).digest()
    return base64.b32encode(digest).decode()[:_LONGEST_CONTROL_ID]


def message(subject: Subject, patient: PatientHeader, routing: Routing, identifier: str) -> str:
    """Return the message.

    Parameters
    ----------
    subject
        What it is about.
    patient
        Whose it is.
    routing
        How the receiver wants it.
    identifier
        From :func:`control_id`.

    Raises
    ------
    MessageInvalidError
        HL7's tables do not allow it.
    """
    at = datetime.fromtimestamp(subject.at).astimezone().strftime("%Y%m%d%H%M%S%z")
    segments = [
        _msh(routing, identifier, at),
        _pid(patient),
        *_pv1(patient),
        _obr(patient, at),
        *_notes([notice(routing.language), *_alert_words(subject, routing.language)]),
        *_observations(subject.screenings, patient, routing, at),
    ]
    text = SEGMENT_END.join(segments) + SEGMENT_END
    _check(text)
    return text


def _msh(routing: Routing, identifier: str, at: str) -> str:
    return header({
        3: escape(routing.sending_application), 4: escape(routing.sending_facility),
        5: escape(routing.receiving_application), 6: escape(routing.receiving_facility), 7: at,
        9: components("ORU", "R01", "ORU_R01"), 10: identifier, 11: "P", 12: routing.version,
        18: routing.character_set.table_0211,
    })  # fmt: skip


def _pid(patient: PatientHeader) -> str:
    return segment("PID", {
        1: "1", 3: components(patient.patient_id, "", "", patient.issuer) or _NULL,
        5: repetitions(_names(patient)) or _NULL,
        7: patient.birth_date, 8: patient.sex if patient.sex in {"M", "F", "O"} else "",
    })  # fmt: skip


def _names(patient: PatientHeader) -> list[str]:
    """Return XPN repetitions, each with its script in XPN-8 (Table 4000) where there is more than one."""
    names = []
    written = [(group, script) for group, script in zip(patient.names, "AIP", strict=False) if group.strip("^ ")]
    for group, script in written:
        family, given, middle, prefix, suffix = (*group.split("^"), "", "", "", "", "")[:5]
        several = script if len(written) > 1 else ""
        names.append(components(family, given, middle, suffix, prefix, "", "L" if several else "", several))
    return names


def _pv1(patient: PatientHeader) -> list[str]:
    """The visit, where the header names one; its class is not known (Table 0004)."""
    if not patient.admission_id:
        return []
    return [segment("PV1", {1: "1", 2: "U", 19: components(patient.admission_id)})]


def _obr(patient: PatientHeader, at: str) -> str:
    accession = components(patient.accession_number)
    return segment("OBR", {
        1: "1", 3: accession, 4: _coded(_DIAGNOSTIC_IMAGING, codes.SERVICE), 7: patient.study_at or at, 18: accession,
        22: at, 24: "CT", 25: _PRELIMINARY,
    })  # fmt: skip


_ALERTS = {
    ("raised", "en"): "ALERT", ("raised", "zh"): "警报",
    ("escalated", "en"): "ALERT, second notice: nobody has acknowledged it on the box",
    ("escalated", "zh"): "警报，第二次通知：尚无人在设备上确认",
}  # fmt: skip


def _alert_words(subject: Subject, language: str) -> list[str]:
    return [] if subject.alert is None else [_ALERTS[subject.alert, language]]


def _notes(texts: Sequence[str]) -> list[str]:
    return [segment("NTE", {1: str(number), 3: escape(text)}) for number, text in enumerate(texts, start=1)]


def _observations(
    screenings: Sequence[ScreeningResult], patient: PatientHeader, routing: Routing, at: str
) -> Iterator[str]:
    number = 1
    yield _obx(number, "ST", _coded(codes.STUDY), "study", escape(patient.study_instance_uid), at=at)
    for result in screenings:
        for fields, notes in _of_screening(result, routing):
            number += 1
            yield _obx(number, at=at, **fields)
            yield from _notes(notes)


def _of_screening(result: ScreeningResult, routing: Routing) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The outcome, its urgency, what was found and the numbers of one screening, each with its notes."""
    outcome = result.outcome
    concept = codes.SCREENINGS.get(result.name, codes.OTHER_SCREENING)
    found = outcome.status is Status.FINDING
    flag = _ABNORMAL[outcome.urgency] if found else "N" if outcome.status is Status.NORMAL else ""
    status = _NO_RESULT if outcome.reason is not None else _PRELIMINARY
    words = [f"{title(result.name, routing.language)}: {detail(result, routing.language)}", *outcome.caveats]
    if outcome.reason is not None:
        reason = codes.REASONS.get(outcome.reason.code, codes.OTHER_REASON)
        words.append(f"{reason.value} {reason.meaning}")
    value = _coded(codes.STATUSES[outcome.status])
    yield _fields("CE", _coded(concept), result.name, value, flag=flag, status=status), words
    if found:
        urgency = _coded(codes.URGENCIES[outcome.urgency])
        yield _fields("CE", _coded(codes.URGENCY), result.name, urgency), []
    for place, finding in enumerate(outcome.findings, start=1):
        what = _coded(codes.named(finding.code, finding.meaning))
        sub = f"{result.name}.finding{place}"
        yield _fields("CE", _coded(codes.FINDING), sub, what, flag=flag), [f"{finding.meaning}; {finding.site}"]
    for item in outcome.measurements:
        sub = f"{result.name}.{item.site}" if item.site else result.name
        unit = _coded(codes.unit(item.unit))
        yield _fields("NM", _coded(codes.measured(item)), sub, f"{item.value:.6g}", units=unit), []


def _fields(
    kind: str, name: str, sub: str, value: str, *, units: str = "", flag: str = "", status: str = _PRELIMINARY
) -> dict[str, str]:
    return {"kind": kind, "name": name, "sub": escape(sub), "value": value, "units": units, "flag": flag,
            "status": status}  # fmt: skip


def _obx(
    number: int, kind: str, name: str, sub: str, value: str, *, at: str, units: str = "", flag: str = "",
    status: str = _PRELIMINARY,
) -> str:  # fmt: skip
    return segment("OBX", {
        1: str(number), 2: kind, 3: name, 4: sub, 5: value, 6: units, 8: flag, 11: status, 14: at,
    })  # fmt: skip


def _coded(concept: Concept, other: Concept | None = None) -> str:
    """Return a CE: a code with its meaning and system, and perhaps another one for the same."""
    parts = [concept.value, concept.meaning, _CODING_SYSTEMS.get(concept.scheme, concept.scheme)]
    if other is not None:
        parts += [other.value, other.meaning, _CODING_SYSTEMS.get(other.scheme, other.scheme)]
    return components(*(part[:_LONGEST_VALUE] for part in parts))


def _check(text: str) -> None:
    """Hold a message against HL7's segment and field tables; a long name is no reason to tell nobody.

    Raises
    ------
    MessageInvalidError
        They do not allow it; the sentence names the rule and nothing of the patient.
    """
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message

    try:
        parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True).validate()
    except HL7apyException as error:
        raise MessageInvalidError(
            f"The message would break a rule of HL7 ({type(error).__name__}); nothing was sent. This is a defect of "
            "the appliance: report it with its version."
        ) from error
