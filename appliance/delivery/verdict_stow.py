"""What the answer of a STOW-RS server means for each object, in the same verdicts as a C-STORE response."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from appliance.delivery.verdict import DUPLICATE_INSTANCE, Judgement, Verdict, verdict_of_status, what
from appliance.dicom.network.link import Obstacle
from appliance.dicom.web.stow import Trouble

if TYPE_CHECKING:
    from appliance.delivery.node import DicomwebNode
    from appliance.delivery.objects import ResultObject
    from appliance.dicom.web.stow import Answer

_TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
_CLASS_NOT_SUPPORTED = 0x0122

_BUSY = frozenset({
    HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.INSUFFICIENT_STORAGE,
})  # fmt: skip
_NOT_HERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED}
)
_NOT_WE = frozenset({
    HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
})  # fmt: skip
_NOT_SO = frozenset({HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})


def judge(item: ResultObject, answer: Answer, node: DicomwebNode) -> Judgement:
    """Judge what became of one object.

    Parameters
    ----------
    item
        The object.
    answer
        Of the request that it was in, or of one before it that ended the transfer.
    node
        Where it was sent to.
    """
    if item.sop_instance_uid in answer.stored:
        return Judgement(Verdict.THERE, None, None)
    if item.sop_instance_uid in answer.failed:
        return _judge_reason(item, answer.failed[item.sop_instance_uid], node)
    if answer.status is None:
        return _judge_trouble(item, answer, node)
    return _judge_status(item, answer, answer.status, node)


def is_about_the_whole(answer: Answer) -> bool:
    """Whether nothing else need be sent to the server now."""
    if answer.status is None:
        return answer.trouble is not Trouble.FILE
    return answer.status in _BUSY | _NOT_HERE | _NOT_WE or 300 <= answer.status < 400


def is_away(answer: Answer) -> bool:
    """Whether the server as a whole is not to be had at present."""
    return answer.trouble in {Trouble.UNREACHABLE, Trouble.CERTIFICATE} or answer.status in _BUSY


def _judge_reason(item: ResultObject, reason: int, node: DicomwebNode) -> Judgement:
    """Judge a Failure Reason (0008,1197); PS3.18 Annex I.2.2 gives them the meaning of C-STORE's statuses."""
    who = f'The DICOMweb service "{node.name}"'
    if reason == DUPLICATE_INSTANCE:
        return Judgement(Verdict.THERE, None, None)
    if reason in {_CLASS_NOT_SUPPORTED, _TRANSFER_SYNTAX_NOT_SUPPORTED}:
        sentence = f"{who} does not take {what(item)}: have it accept this SOP class{_leave_out(item)}."
        return Judgement(Verdict.PERSON, Obstacle.SOP_CLASS, sentence)
    verdict = verdict_of_status(reason)
    said = f"failure reason 0x{reason:04X}" if reason else "no reason"
    if verdict is Verdict.AGAIN:
        return Judgement(verdict, Obstacle.BUSY, f"{who} has not stored {item.path.name}, {said}.")
    sentence = (
        f"{who} has not stored this {what(item)}, {said}; ask its administrator what it logged, then `appliance retry`."
    )
    return Judgement(verdict, Obstacle.STATUS, sentence)


def _judge_trouble(item: ResultObject, answer: Answer, node: DicomwebNode) -> Judgement:
    who, where = _names(node)
    if answer.trouble is Trouble.FILE:
        sentence = (
            f"The object {item.path.name} on this box cannot be read ({answer.detail}); have the scan sent again."
        )
        return Judgement(Verdict.PERSON, Obstacle.FILE, sentence)
    sentence = {
        Trouble.UNREACHABLE: (
            f"{who} at {node.access.url} cannot be reached; check url of {where}, network, firewall and name server."
        ),
        Trouble.CERTIFICATE: (
            f"{who} and this box do not trust each other ({answer.detail or 'TLS'}). Set trusted of {where} to the "
            "authority that signed the server's certificate, let url name the host that the certificate names, and set "
            "certificate and private_key if the server asks for them."
        ),
        Trouble.TIME_OUT: f"{who} did not answer within timeout_s = {node.access.timeout_s:g} of {where}.",
    }.get(answer.trouble or Trouble.BROKEN_OFF, f"{who} broke off the connection before it had answered.")
    return Judgement(Verdict.AGAIN, Obstacle.NETWORK, sentence)


def _judge_status(item: ResultObject, answer: Answer, status: int, node: DicomwebNode) -> Judgement:
    who, where = _names(node)
    verdict, obstacle = Verdict.PERSON, Obstacle.STATUS
    if status in _BUSY:
        verdict, obstacle = Verdict.AGAIN, Obstacle.BUSY
        later = f" and wants to be left alone for {answer.retry_after_s:.0f} s" if answer.retry_after_s else ""
        sentence = f"{who} is busy (HTTP {status}){later}."
    elif status in _NOT_WE:
        obstacle = Obstacle.AUTHENTICATION
        keys = _keys(node)
        sentence = f"{who} does not let this box store (HTTP {status}): correct {keys} of {where}, or allow it there."
    elif status in _NOT_HERE:
        obstacle = Obstacle.URL
        sentence = (
            f"There is no STOW-RS at {node.access.url}/studies (HTTP {status}): correct url of {where}; it is the root "
            "of the service, to which /studies is added."
        )
    elif 300 <= status < 400:
        obstacle = Obstacle.URL
        sentence = (
            f"{who} redirects to {answer.location or 'another address'} (HTTP {status}); redirects are not followed. "
            f"If that is right, write that address into url of {where}, without /studies."
        )
    elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        obstacle = Obstacle.TOO_LARGE
        size_mib = item.path.stat().st_size / (1 << 20)
        sentence = (
            f"{who} takes no request as large as {item.path.name} ({size_mib:.1f} MiB): raise its limit, or that of "
            f"the proxy before it{_leave_out(item)}."
        )
    elif status in _NOT_SO:
        obstacle = Obstacle.MEDIA_TYPE
        sentence = (
            f"{who} does not take DICOM files in a multipart/related request or does not answer in "
            f"application/dicom+json (HTTP {status}): have STOW-RS with both allowed there."
        )
    elif 200 <= status < 300:
        verdict = Verdict.DOUBTFUL
        sentence = (
            f"{who} answered HTTP {status} without naming {item.path.name} among what it stored, so it is not taken as "
            f"delivered: url of {where} may lead to a portal instead of the service."
        )
    else:
        verdict = Verdict.DOUBTFUL
        sentence = (
            f"{who} answered HTTP {status} to this {what(item)}; ask its administrator what it logged, then "
            "`appliance retry`."
        )
    return Judgement(verdict, obstacle, sentence)


def _names(node: DicomwebNode) -> tuple[str, str]:
    return f'The DICOMweb service "{node.name}"', f'deliver.dicomweb "{node.name}"'


def _keys(node: DicomwebNode) -> str:
    if node.access.username is not None:
        return "username and secret_file"
    return "secret_file" if node.access.secret_file is not None else "username, secret_file or certificate"


def _leave_out(item: ResultObject) -> str:
    return f', or leave "{item.kind}" out of its kinds in deliver.dicomweb' if item.kind else ""
