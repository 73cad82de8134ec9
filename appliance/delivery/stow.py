"""Result objects to a PACS by STOW-RS (PS3.18 Section 10.5): a few in a request, each confirmed by name."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from appliance.delivery.shipment import Carried
from appliance.delivery.verdict import Verdict
from appliance.delivery.verdict_stow import is_about_the_whole, is_away, judge
from appliance.dicom.web.stow import Trouble, store

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from appliance.delivery.node import DicomwebNode
    from appliance.delivery.objects import ResultObject
    from appliance.delivery.verdict import Judgement
    from appliance.dicom.web.stow import Answer

_REQUEST_BYTES = 32 << 20

# A server that refuses a request as a whole may do so because of one object in it.
_MAY_BE_ONE_OBJECT = frozenset({
    HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.INTERNAL_SERVER_ERROR,
})  # fmt: skip


class StowCarrier:
    """A :class:`~appliance.delivery.shipment.Carrier` over HTTP.

    Parameters
    ----------
    node
        The DICOMweb service.
    """

    def __init__(self, node: DicomwebNode) -> None:
        self.node = node

    def carry(
        self, objects: Sequence[ResultObject], confirm: Callable[[ResultObject, int], None], stop: threading.Event
    ) -> Carried:
        """Send objects in as few requests as their size allows.

        Raises
        ------
        ConfigurationError
            Certificates or secrets of this side cannot be used.
        """
        node = self.node
        judgements: list[Judgement] = []
        left = list(_batches(objects))
        answer: Answer | None = None
        with node.access.client() as client:
            while left:
                batch = left.pop(0)
                answer = store(client, node.access.url, [item.path for item in batch], stop)
                if len(batch) > 1 and _says_nothing_of_any(answer):
                    left[:0] = [[item] for item in batch]
                    continue
                for item in batch:
                    judgements.append(judge(item, answer, node))
                    if judgements[-1].verdict is Verdict.THERE:
                        confirm(item, 0)
                if is_about_the_whole(answer):
                    judgements += [judge(item, answer, node) for others in left for item in others]
                    break
        if answer is None:
            return Carried(())
        return Carried(tuple(judgements), away=is_away(answer), wait_s=answer.retry_after_s)


def _batches(objects: Sequence[ResultObject]) -> Iterator[list[ResultObject]]:
    batch: list[ResultObject] = []
    size = 0
    for item in objects:
        length = item.path.stat().st_size
        if batch and size + length > _REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _says_nothing_of_any(answer: Answer) -> bool:
    if answer.stored or answer.failed:
        return False
    return answer.status in _MAY_BE_ONE_OBJECT or answer.trouble is Trouble.FILE
