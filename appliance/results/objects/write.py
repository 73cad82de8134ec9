"""All result objects of one scan into a folder, ready to be sent; the one door of this room."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from appliance.results.objects.capture import captures
from appliance.results.objects.general import Making, save
from appliance.results.objects.report_sr import structured_report
from appliance.results.objects.segmentation import segmentations, wanted_structures
from appliance.results.objects.source import read_source
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


def write_objects(
    folder: Path,
    scan: Scan,
    report: Report,
    organs: OrganMap | None,
    instances: Sequence[Path] | Sequence[InstanceHeader],
    settings: Settings,
) -> list[Path]:
    """Write the DICOM objects of a result.

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

    Returns
    -------
    list of Path
        Segmentations, then the report that refers to them, then the captures; those that could be made.

    Raises
    ------
    ResultObjectError, InputRefusedError
        The source cannot be referred to at all.
    """
    wanted = settings.results
    if not wanted.objects:
        return []
    source = read_source(scan, instances)
    may_be_chinese = choose_character_set(source.modules, wanted.language)
    making = Making(source, report, settings.box.name, wanted.first_series_number, datetime.now().astimezone())
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    written: list[Path] = []
    references: dict[str, SegmentReference] = {}

    def segments() -> Iterator[Named]:
        names = wanted_structures(report, organs) if organs is not None else ()
        for number, (ds, where) in enumerate(segmentations(making, organs, names) if organs is not None else ()):
            yield f"segmentation-{number + 1}", ds
            references.update(where)  # only once it is on disk

    def reports() -> Iterator[Named]:
        language = "zh" if wanted.language == "zh" and may_be_chinese else "en"
        yield "report", structured_report(making, references, language, predecessor=report.revision > 1)

    def pages() -> Iterator[Named]:
        for name, ds in captures(making, wanted.language, patient_name=wanted.patient_name_on_captures):
            yield f"capture-{name}", ds

    for kind, make in (("seg", segments), ("sr", reports), ("capture", pages)):
        if kind in wanted.objects:
            _write_kind(kind, make, target, written)
    return written


def _write_kind(kind: str, make: Callable[[], Iterator[Named]], target: Path, written: list[Path]) -> None:
    """Write the objects of one kind; a defect ends this kind, is logged, and costs no other and not the report."""
    import traceback

    import structlog

    path = target
    try:
        for name, ds in make():
            path = target / f"{name}.dcm"
            save(ds, path)
            written.append(path)
    except Exception as error:  # noqa: BLE001  # see above
        if path not in written and path != target:
            path.unlink(missing_ok=True)  # half an object is none
        # not the message: it may quote what could not be written, such as a name
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        structlog.get_logger().error("result_object_failed", kind=kind, error=type(error).__name__, where=where)
