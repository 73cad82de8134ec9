"""The data sets of Storage Commitment (PS3.4 Tables J.3-1 and J.3-2), and what its failure reasons mean."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

if TYPE_CHECKING:
    from pydicom.uid import UID

    from appliance.dicom.commitment_spool import CommitmentReport, ReferencedInstance

# Event Type ID.
SUCCESSFUL: Final = 1
FAILURES_EXIST: Final = 2

# Failure Reason (0008,1197), PS3.3 C.14.1.1.
FAILED_PROCESSING: Final = 0x0110
FAILED_NO_SUCH_INSTANCE: Final = 0x0112
FAILED_CLASS_CONFLICT: Final = 0x0119
FAILED_CLASS_NOT_SUPPORTED: Final = 0x0122
FAILED_DUPLICATE_TRANSACTION: Final = 0x0131
FAILED_RESOURCES: Final = 0x0213

FAILURE_WORDS: Final = {
    FAILED_PROCESSING: "processing failure",
    FAILED_NO_SUCH_INSTANCE: "no such object instance",
    FAILED_CLASS_CONFLICT: "class and instance conflict",
    FAILED_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    FAILED_DUPLICATE_TRANSACTION: "duplicate transaction UID",
    FAILED_RESOURCES: "resource limitation",
}


def request_data(transaction_uid: str, instances: tuple[ReferencedInstance, ...]) -> Dataset:
    """Return the Action Information of a request."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [_item(instance) for instance in instances]
    return dataset


def report_data(report: CommitmentReport) -> Dataset:
    """Return the Event Information of a report."""
    dataset = Dataset()
    dataset.TransactionUID = report.transaction_uid
    if report.committed:
        dataset.ReferencedSOPSequence = [_item(instance) for instance in report.committed]
    if report.failed:
        dataset.FailedSOPSequence = [_item(instance) for instance in report.failed]
    return dataset


def encoded_report(report: CommitmentReport, transfer_syntax: UID) -> BytesIO:
    """Return the Event Information of a report, encoded.

    Raises
    ------
    ValueError
        It cannot be encoded.
    """
    encoded = encode(report_data(report), transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian)
    if encoded is None:
        raise ValueError("a report that cannot be encoded")
    return BytesIO(encoded)


def _item(instance: ReferencedInstance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    if instance.failure is not None:
        item.FailureReason = instance.failure
    return item
