"""Sending DICOM files: one association, each file in its own transfer syntax, a sentence for each failure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.presentation import build_context
from pynetdicom.status import code_to_category

from appliance.dicom.network.link import Failure, Obstacle, application_entity, associate, node_name
from appliance.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from appliance.foreign_text import one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from appliance.dicom.network.link import Link
    from appliance.tls import TlsFiles

# pynetdicom sends a file undecoded only under this process-wide flag. It is set once, here, so that no thread ever sees
# it change; and it concerns nobody else: it is looked at only when a path is passed, and a path is passed only here.
_config.STORE_SEND_CHUNKED_DATASET = True

# A-ASSOCIATE-RQ holds at most 128 contexts (PS3.8 Section 9.3.2.2); a compressed class takes one, others three.
_MOST_CONTEXTS = 126
_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file.

    Attributes
    ----------
    path
        The file.
    status
        Status of the C-STORE response, or ``None`` when there was none.
    problem
        Why it is not with the peer, as a sentence; ``None`` when it is.
    obstacle
        The same for a program.
    """

    path: Path
    status: int | None
    problem: str | None
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of a transfer.

    Attributes
    ----------
    results
        One entry for each file, in the order given.
    problem
        Why the association failed as a whole, as a sentence with what to change; ``None`` when it did not.
    permanent
        Whether trying again is pointless before somebody changes a setting (A-ASSOCIATE-RJ, rejected permanent).
    seconds
        How long it took.
    obstacle
        As ``problem``, for a program.
    """

    results: tuple[FileResult, ...]
    problem: str | None
    permanent: bool
    seconds: float
    obstacle: Obstacle | None = None

    @property
    def ok(self) -> bool:
        """Whether every file is with the peer."""
        return self.problem is None and all(result.problem is None for result in self.results)

    @property
    def accepted(self) -> int:
        """Number of files that the peer acknowledged."""
        return sum(result.problem is None for result in self.results)


@dataclass(frozen=True, slots=True)
class EchoReport:
    """Answer to a C-ECHO.

    Attributes
    ----------
    problem
        Why there was none, as a sentence; ``None`` when the peer answered.
    permanent
        As in :class:`SendReport`.
    """

    problem: str | None
    permanent: bool

    @property
    def ok(self) -> bool:
        """Whether the peer answered with success."""
        return self.problem is None


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    sop_class: str
    transfer_syntax: str


def echo(
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    tls: TlsFiles | None = None,
    timeout_s: float = 15.0,
) -> EchoReport:
    """Ask a peer for a sign of life with C-ECHO (PS3.4 Annex A).

    Parameters
    ----------
    host, port
        Where the peer listens.
    called_ae, calling_ae
        The peer's AE title and ours.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting and for each answer.
    """
    ae = application_entity(calling_ae, timeout_s)
    link = associate(ae, [build_context(VERIFICATION)], host, port, called_ae, tls)
    if isinstance(link, Failure):
        return EchoReport(link.problem, link.permanent)
    with link as association:
        status = association.send_c_echo().get("Status")
    if status == 0:
        return EchoReport(None, permanent=False)
    answer = "nothing" if status is None else f"status 0x{status:04X}"
    return EchoReport(f"{node_name(called_ae, host, port)} answered the C-ECHO with {answer}.", permanent=False)


def send(
    paths: Iterable[Path],
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    tls: TlsFiles | None = None,
    timeout_s: float = 60.0,
    on_progress: Callable[[int, int], None] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
    stop: threading.Event | None = None,
) -> SendReport:
    """Send DICOM files with C-STORE (PS3.4 Annex B) over one association.

    A file goes out byte for byte as it is on disk when the peer accepts its transfer syntax. Only uncompressed little
    endian files are otherwise converted between explicit and implicit VR; pixels are never recompressed.

    Parameters
    ----------
    paths
        DICOM files (PS3.10). What is not one fails alone.
    host, port
        Where the peer listens.
    called_ae, calling_ae
        The peer's AE title and ours.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting and for each answer.
    on_progress
        Called after each file with the number of files done and their total.
    on_result
        Called for each file as soon as it is known what became of it, before the next one is sent.
    stop
        Once it is set, no answer is waited for and no further file is sent.

    Returns
    -------
    SendReport
        Nothing is raised for what the network, the peer or a file does wrong.
    """
    started = time.monotonic()
    ordered = list(paths)
    results: dict[Path, FileResult] = {}

    def note(result: FileResult) -> None:
        results[result.path] = result
        if on_result is not None:
            on_result(result)
        if on_progress is not None:
            on_progress(len(results), len(ordered))

    files = []
    for described in map(_describe, ordered):
        if isinstance(described, FileResult):
            note(described)
        else:
            files.append(described)
    failure: Failure | None = None
    ae = application_entity(calling_ae, timeout_s)
    for batch in _batches(files):
        link = associate(ae, _contexts(batch), host, port, called_ae, tls, stop)
        if isinstance(link, Failure):
            failure = link
            for file in batch:
                note(FileResult(file.path, None, link.problem, link.obstacle))
            continue
        _send_batch(link, batch, node_name(called_ae, host, port), note)
    seconds = time.monotonic() - started
    ended = tuple(results[path] for path in ordered)
    if failure is None:
        return SendReport(ended, None, False, seconds)
    return SendReport(ended, failure.problem, failure.permanent, seconds, failure.obstacle)


def _describe(path: Path) -> _File | FileResult:
    try:
        meta = read_file_meta_info(path)
        return _File(path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except OSError as error:
        return FileResult(path, None, f"The file cannot be read: {error.strerror}.", Obstacle.FILE)
    except (InvalidDicomError, AttributeError, ValueError, KeyError, EOFError):
        return FileResult(path, None, "The file is not a DICOM file with file meta information.", Obstacle.FILE)


def _batches(files: Sequence[_File]) -> Iterator[list[_File]]:
    batch: list[_File] = []
    pairs: set[tuple[str, str]] = set()
    for file in files:
        wanted = _pairs(file)
        if batch and len(pairs | wanted) > _MOST_CONTEXTS:
            yield batch
            batch, pairs = [], set()
        batch.append(file)
        pairs |= wanted
    if batch:
        yield batch


def _pairs(file: _File) -> set[tuple[str, str]]:
    syntaxes = {file.transfer_syntax}
    if file.transfer_syntax in _UNCOMPRESSED:
        syntaxes.update(_UNCOMPRESSED)
    return {(file.sop_class, syntax) for syntax in syntaxes}


def _contexts(files: Sequence[_File]) -> list[PresentationContext]:
    # One transfer syntax each, so that the peer cannot choose another than the file's own.
    pairs = dict.fromkeys(pair for file in files for pair in sorted(_pairs(file)))
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def _send_batch(link: Link, files: Sequence[_File], peer: str, note: Callable[[FileResult], None]) -> None:
    with link as association:
        for file in files:
            note(_send_file(association, file, peer))


def _send_file(association: Association, file: _File, peer: str) -> FileResult:
    if not association.is_established:
        return FileResult(file.path, None, f"{peer} broke off the association before this file.", Obstacle.NETWORK)
    accepted = {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in association.accepted_contexts}
    try:
        if (file.sop_class, file.transfer_syntax) in accepted:
            answer = association.send_c_store(file.path)
        elif not accepted.isdisjoint(_pairs(file)):
            answer = association.send_c_store(_decoded(file.path))
        else:
            name = UID(file.transfer_syntax).name
            sentence = f"{peer} does not accept this kind of object in {name}."
            return FileResult(file.path, None, sentence, Obstacle.SOP_CLASS)
    except OSError as error:
        why = error.strerror or "it is damaged"  # pydicom's own have no number
        return FileResult(file.path, None, f"The file cannot be read: {why}.", Obstacle.FILE)
    except (ValueError, AttributeError, RuntimeError):
        # The exception's own text may quote identifiers out of the file.
        obstacle = Obstacle.FILE if association.is_established else Obstacle.NETWORK
        sentence = f"The file could not be encoded for {peer}, or the association ended."
        return FileResult(file.path, None, sentence, obstacle)
    return _judge(file.path, answer, peer)


def _decoded(path: Path) -> Dataset:
    """Read a data set.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is damaged; pydicom's own errors for that have no common class, and one damaged file must not end a service.
    """
    try:
        return dcmread(path)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(type(error).__name__) from error


def _judge(path: Path, answer: Dataset, peer: str) -> FileResult:
    status = answer.get("Status")
    if status is None:
        return FileResult(path, None, f"{peer} gave no answer to this file.", Obstacle.NETWORK)
    if code_to_category(status) in {"Success", "Warning"}:
        return FileResult(path, status, None)
    comment = one_line(str(answer.get("ErrorComment", "")))
    said = f": {comment}" if comment else ""
    return FileResult(path, status, f"{peer} answered 0x{status:04X}{said}.", Obstacle.STATUS)
