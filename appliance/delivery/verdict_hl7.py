"""What the answer of an HL7 receiver means: it is there, it is tried again, or a person must change something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.delivery.verdict import Judgement, Verdict
from appliance.dicom.network.link import Obstacle
from appliance.hl7.acknowledgement import ACCEPTED, AckCode
from appliance.hl7.mllp import Trouble

if TYPE_CHECKING:
    from appliance.delivery.node import Hl7Node
    from appliance.hl7.acknowledgement import Acknowledgement
    from appliance.hl7.mllp import Reply

# HL7 Table 0357: what may be another way in a minute, and what a setting of this side mends.
_PASSING = frozenset({"206", "207"})
_SETTINGS = {
    "200": "it does not take ORU^R01 messages: have them accepted there",
    "201": "it does not take ORU^R01 messages: have them accepted there",
    "202": "it takes no messages with processing id P: have them accepted there",
    "203": "set version of {where} to the one that it takes",
    "204": "it does not know this patient or order",
}


def judge(reply: Reply, node: Hl7Node) -> Judgement:
    """Judge what became of a message.

    Parameters
    ----------
    reply
        What came back.
    node
        Where it was sent to.
    """
    if reply.acknowledgement is None:
        return _judge_trouble(reply, node)
    answer = reply.acknowledgement
    if answer.code in ACCEPTED:
        return Judgement(Verdict.THERE, None, None)
    return _judge_refusal(answer, node)


def is_away(reply: Reply) -> bool:
    """Whether the receiver as a whole is not to be had at present."""
    return reply.trouble in {Trouble.UNREACHABLE, Trouble.CERTIFICATE}


def _judge_refusal(answer: Acknowledgement, node: Hl7Node) -> Judgement:
    who, where = f'The HL7 receiver "{node.name}"', f'deliver.hl7 "{node.name}"'
    said = "".join(f" {part}" for part in (answer.error and f"code {answer.error}", answer.text) if part)
    if answer.code is None:
        sentence = f"{who} answered with an acknowledgment code that is none of HL7's; ask its administrator.{said}"
        return Judgement(Verdict.DOUBTFUL, Obstacle.STATUS, sentence)
    name = "error" if answer.code in {AckCode.ERROR, AckCode.COMMIT_ERROR} else "rejection"
    told = f"{who} answered {answer.code.value} ({name}{':' if said else ''}{said})"
    if answer.error in _PASSING:
        return Judgement(Verdict.DOUBTFUL, Obstacle.BUSY, f"{told}.")
    change = _SETTINGS.get(answer.error, "ask its administrator what it logged, then `appliance retry`")
    return Judgement(Verdict.PERSON, Obstacle.REFUSED, f"{told}: {change.format(where=where)}.")


def _judge_trouble(reply: Reply, node: Hl7Node) -> Judgement:
    who, where = f'The HL7 receiver "{node.name}" at {node.address}:{node.port}', f'deliver.hl7 "{node.name}"'
    verdict, obstacle = Verdict.AGAIN, Obstacle.NETWORK
    if reply.trouble is Trouble.UNREACHABLE:
        sentence = f"{who} cannot be reached ({reply.detail}); check address and port of {where}, cable and firewall."
    elif reply.trouble is Trouble.CERTIFICATE:
        sentence = f"{who} and this box do not trust each other ({reply.detail}); check tls of {where} on both sides."
    elif reply.trouble is Trouble.TIME_OUT:
        sentence = f"{who} gave no whole answer within timeout_s = {node.timeout_s:g} of {where}."
    elif reply.trouble is Trouble.OTHER_MESSAGE:
        verdict, obstacle = Verdict.DOUBTFUL, Obstacle.STATUS
        sentence = f"{who} answered to another message than the one sent (MSA-2), so that it is not taken as delivered."
    elif reply.trouble is Trouble.NO_HL7:
        verdict, obstacle = Verdict.DOUBTFUL, Obstacle.STATUS
        sentence = f"{who} does not answer in HL7 over MLLP; check address and port of {where}."
    else:
        sentence = f"{who} broke off the connection before it had answered."
    return Judgement(verdict, obstacle, sentence)
