"""All result objects of one scan into a folder, ready to be sent; the one door of this room."""

from __future__ import annotations

import hashlib
import json
import traceback
from datetime import datetime
from typing import TYPE_CHECKING

from appliance.durable import is_the_box_s
from appliance.results.missing import MissingKind, note_missing
from appliance.results.objects.capture import captures
from appliance.results.objects.fonts import chinese_font
from appliance.results.objects.general import Making, save
from appliance.results.objects.key_objects import key_objects
from appliance.results.objects.report_sr import structured_report
from appliance.results.objects.segmentation import segmentations, wanted_structures
from appliance.results.objects.source import read_source
from appliance.results.objects.summary_pdf import summary_pdf
from appliance.results.objects.text import choose_character_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset

    from appliance.anatomy.organ_map import OrganMap
    from appliance.config import Settings
    from appliance.dicom.image.headers import InstanceHeader
    from appliance.results.objects.segmentation import SegmentReference
    from appliance.results.report import Report
    from appliance.scan import Scan

    Named = tuple[str, Dataset]

FOLDER = "objects"
_REPORT_NAME = "report"


def write_objects(
    folder: Path,
    scan: Scan,
    report: Report,
    organs: OrganMap | None,
    instances: Sequence[Path] | Sequence[InstanceHeader],
    settings: Settings,
    *,
    predecessor: Path | None = None,
) -> list[Path]:
    """Write the DICOM objects of a result.

    A defect in one kind is logged, noted in the folder (:mod:`appliance.results.missing`), and costs no other kind.

    Parameters
    ----------
    folder
        An existing folder; the objects go into ``objects`` in it.
    scan
        The scan.
    report
        What was found.
    organs
        Its organ map; ``None`` when no screening needed one.
    instances
        The scan's files or headers, any order.
    settings
        ``results`` says which kinds, in which language; ``box.name`` is the serial number.
    predecessor
        Results folder of the revision before this one, where there is one.

    Returns
    -------
    list of Path
        Segmentations, then the report that refers to them, then the captures and the rest; those that could be made.

    Raises
    ------
    ResultObjectError, InputRefusedError
        The source cannot be referred to at all.
    OSError
        The disk is full or read-only.
    """
    wanted = settings.results
    if not wanted.objects:
        return []
    source = read_source(scan, instances)
    may_be_chinese = choose_character_set(source.modules, wanted.language)
    at, digest = datetime.now().astimezone(), content_digest(report, organs, settings)
    making = Making(source, report, settings.box.name, wanted.first_series_number, at, digest)
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    references: dict[str, SegmentReference] = {}
    language = "zh" if wanted.language == "zh" and may_be_chinese else "en"
    pictures: list[Dataset] = []

    def segments() -> Iterator[Named]:
        names = wanted_structures(report, organs) if organs is not None else ()
        for number, (ds, where) in enumerate(segmentations(making, organs, names) if organs is not None else ()):
            yield f"segmentation-{number + 1}", ds
            del ds  # it is on disk; the next one is as large
            references.update(where)  # only once it is on disk

    def reports() -> Iterator[Named]:
        yield _REPORT_NAME, structured_report(making, references, language, predecessor=_report_before(predecessor))

    def pages() -> Iterator[Named]:
        for name, ds in captures(making, wanted.language, patient_name=wanted.patient_name_on_captures):
            yield f"capture-{name}", ds
            pictures.append(_named_only(ds))

    def pdf() -> Iterator[Named]:
        yield "summary", summary_pdf(making, wanted.language, patient_name=wanted.patient_name_on_captures)

    def key_object_selection() -> Iterator[Named]:
        selection = key_objects(making, pictures, language)
        if selection is not None:
            yield "key-objects", selection

    makers = (
        ("seg", segments), ("sr", reports), ("capture", pages), ("pdf", pdf), ("ko", key_object_selection),
    )  # fmt: skip
    written: list[Path] = []
    missing = [_write_kind(kind, make, target, written) for kind, make in makers if kind in wanted.objects]
    note_missing(folder, [item for item in missing if item is not None])
    return written


def content_digest(report: Report, organs: OrganMap | None, settings: Settings) -> str:
    """Return ``sha256:…`` over everything that decides what is in the objects of a scan, but for when they are made.

    The same scan screened again by another network, another release, other settings or on another box gives other
    objects; the same result made again gives the same ones.

    Parameters
    ----------
    report
        What was found, and what found it.
    organs
        The organ map that the segmentations are cut from.
    settings
        ``results`` and ``box.name``.
    """
    tree = report.to_json()
    tree.pop("timings")
    for screening in tree["screenings"]:
        screening.pop("seconds")
    told = {
        "report": tree,
        "results": settings.results.model_dump(mode="json"),
        "box": settings.box.name,
        "organs": None if organs is None else hashlib.sha256(organs.labels.tobytes()).hexdigest(),
        "font": str(chinese_font()),
    }
    return "sha256:" + hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _report_before(predecessor: Path | None) -> Dataset | None:
    """Read the identifiers of the report that the revision before left; what it did not leave is not referred to."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    if predecessor is None:
        return None
    path = predecessor / FOLDER / f"{_REPORT_NAME}.dcm"
    try:
        ds = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
    except (OSError, InvalidDicomError, ValueError, EOFError):
        return None
    return ds if ds.get("SOPInstanceUID") and ds.get("SeriesInstanceUID") and ds.get("SOPClassUID") else None


def _named_only(ds: Dataset) -> Dataset:
    """Return what a reference to an image needs, without its pixels."""
    from pydicom.dataset import Dataset as New

    named = New()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns"):
        setattr(named, keyword, ds[keyword].value)
    return named


def _write_kind(
    kind: str, make: Callable[[], Iterator[Named]], target: Path, written: list[Path]
) -> MissingKind | None:
    """Write the objects of one kind; a defect ends this kind and is returned.

    Raises
    ------
    OSError
        The disk is full or read-only, which is no defect of the kind.
    """
    import structlog

    path = target
    try:
        for name, ds in make():
            path = target / f"{name}.dcm"
            save(ds, path)
            written.append(path)
            del ds  # the generator makes the next one, and two are twice the memory
    except Exception as error:  # see above
        if path not in written and path != target:
            path.unlink(missing_ok=True)  # half an object is none
        if isinstance(error, OSError) and is_the_box_s(error):
            raise
        # not the message: it may quote what could not be written, such as a name
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        structlog.get_logger().error("result_object_failed", kind=kind, error=type(error).__name__, where=where)
        return MissingKind(kind, type(error).__name__, where)
    return None
