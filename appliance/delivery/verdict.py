"""What an answer means for a delivery: it is there, it is tried again, or a person must change something, and what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.dicom.network.link import Obstacle

if TYPE_CHECKING:
    from appliance.delivery.node import PacsNode
    from appliance.delivery.objects import ResultObject
    from appliance.dicom.network.sender import FileResult

DOUBTFUL_TRIES = 5
"""Tries of what the peer calls not understood: some say so only because their disk is full."""

DUPLICATE_INSTANCE = 0x0111
"""The peer has the object already."""

_CLASS_NOT_SUPPORTED = 0x0122
_NOT_AUTHORISED = 0x0124

# PS3.7 Annex C. 0x0110 processing failure and 0x0213 resource limitation pass; the others say that the object, its
# class or this box is not wanted.
_PERMANENT = frozenset({0x0106, 0x0115, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, _CLASS_NOT_SUPPORTED, _NOT_AUTHORISED})
_PASSING = frozenset({0x0110, 0x0213})


class Verdict(StrEnum):
    """What to do about one object."""

    THERE = "there"
    AGAIN = "again"
    DOUBTFUL = "doubtful"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one object.

    Attributes
    ----------
    verdict
        What to do.
    obstacle
        What stands in the way; ``None`` when the object is there.
    sentence
        The same for whoever must act; ``None`` when the object is there.
    """

    verdict: Verdict
    obstacle: Obstacle | None
    sentence: str | None


def judge(item: ResultObject, result: FileResult, node: PacsNode, *, permanent: bool = False) -> Judgement:
    """Judge what became of one object.

    Parameters
    ----------
    item
        The object.
    result
        What the sender says of it.
    node
        Where it was sent to.
    permanent
        Whether the association was refused for good (A-ASSOCIATE-RJ result 1, PS3.8 Section 9.3.4).
    """
    if result.problem is None or result.status == DUPLICATE_INSTANCE:
        return Judgement(Verdict.THERE, None, None)
    obstacle = result.obstacle or Obstacle.NETWORK
    if obstacle is Obstacle.STATUS and result.status is not None:
        return _judge_status(item, result, node)
    if obstacle in {Obstacle.SOP_CLASS, Obstacle.FILE} or permanent:
        return Judgement(Verdict.PERSON, obstacle, _sentence(item, obstacle, result.problem, node))
    return Judgement(Verdict.AGAIN, obstacle, result.problem)


def verdict_of_status(status: int) -> Verdict:
    """Return what a failure status of a C-STORE response means (PS3.4 Annex B.2.3, PS3.7 Annex C)."""
    if status >> 8 == 0xA7 or status in _PASSING:
        return Verdict.AGAIN
    if status in _PERMANENT or status >> 8 == 0xA9:
        return Verdict.PERSON
    return Verdict.DOUBTFUL


def _judge_status(item: ResultObject, result: FileResult, node: PacsNode) -> Judgement:
    verdict = verdict_of_status(result.status or 0)
    if verdict is Verdict.AGAIN:
        return Judgement(verdict, Obstacle.BUSY, result.problem)
    if result.status == _CLASS_NOT_SUPPORTED:
        return Judgement(verdict, Obstacle.SOP_CLASS, _sentence(item, Obstacle.SOP_CLASS, "", node))
    if result.status == _NOT_AUTHORISED:
        sentence = f'The PACS "{node.name}" does not let {node.calling_ae} store; allow it there.'
        return Judgement(verdict, Obstacle.REFUSED, sentence)
    sentence = (
        f"{result.problem} It does not take this {what(item)}; ask its administrator what it logged, then "
        "`appliance retry`."
    )
    return Judgement(verdict, Obstacle.STATUS, sentence)


def _sentence(item: ResultObject, obstacle: Obstacle, problem: str, node: PacsNode) -> str:
    if obstacle is Obstacle.CALLING_AE_TITLE:
        return (
            f'The PACS "{node.name}" does not know this box: add AE title {node.calling_ae} with this box\'s address '
            "to the PACS."
        )
    if obstacle is Obstacle.CALLED_AE_TITLE:
        return (
            f'The PACS "{node.name}" at {node.address}:{node.port} does not answer to AE title {node.ae_title}: '
            f'correct ae_title of deliver.destinations "{node.name}" in the configuration.'
        )
    if obstacle is Obstacle.SOP_CLASS:
        leave = f', or leave "{item.kind}" out of its kinds in deliver.destinations' if item.kind else ""
        return f'The PACS "{node.name}" does not take {what(item)}: have it accept this SOP class{leave}.'
    if obstacle is Obstacle.REFUSED:
        return f"{problem} Ask its administrator what it logged."
    return f"{problem} The object {item.path.name} on this box is damaged; have the scan sent again."


def what(item: ResultObject) -> str:
    """Return what an object is: the name and the UID of its SOP class."""
    from pydicom.uid import UID

    return f"{UID(item.sop_class_uid).name} ({item.sop_class_uid})"
