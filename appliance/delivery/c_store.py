"""Result objects to a PACS by C-STORE (PS3.4 Annex B): one association for what is sent at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.delivery.shipment import Carried
from appliance.delivery.verdict import Verdict, judge
from appliance.dicom.network.sender import send

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from appliance.delivery.node import PacsNode
    from appliance.delivery.objects import ResultObject
    from appliance.dicom.network.sender import FileResult


class CStoreCarrier:
    """A :class:`~appliance.delivery.shipment.Carrier` over DICOM associations.

    Parameters
    ----------
    node
        The PACS.
    """

    def __init__(self, node: PacsNode) -> None:
        self.node = node

    def carry(
        self, objects: Sequence[ResultObject], confirm: Callable[[ResultObject, int], None], stop: threading.Event
    ) -> Carried:
        """Send objects over one association.

        Raises
        ------
        ConfigurationError
            The TLS files of this side cannot be used.
        """
        node = self.node
        by_path = {item.path: item for item in objects}

        def note(result: FileResult) -> None:
            item = by_path[result.path]
            if judge(item, result, node).verdict is Verdict.THERE:
                confirm(item, result.status or 0)

        report = send(
            by_path,
            host=node.address,
            port=node.port,
            called_ae=node.ae_title,
            calling_ae=node.calling_ae,
            tls=node.tls,
            timeout_s=node.timeout_s,
            on_result=note,
            stop=stop,
        )
        judgements = tuple(
            judge(by_path[result.path], result, node, permanent=report.permanent) for result in report.results
        )
        return Carried(judgements, away=report.problem is not None and not report.permanent)
