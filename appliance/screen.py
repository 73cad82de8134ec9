"""One series in, one report out: volume, plan, organ map, screenings, in that order.

The one place where the rooms meet. ``appliance screen`` and the work service's child process both call it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import appliance
from appliance.reasons import Reason, ReasonCode
from appliance.results.report import Report, ScreeningResult
from appliance.screenings.contract import Outcome, Status
from appliance.screenings.planner import plan, run_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.organ_map import OrganMap
    from appliance.config import Settings
    from appliance.dicom.image.headers import InstanceHeader
    from appliance.packs.rules import Rules
    from appliance.packs.runtime import Computing, Fallback, Runtime, Snapshot
    from appliance.scan import Scan, SeriesSketch
    from appliance.screenings.guards import ImageJudgement
    from appliance.screenings.planner import PlanEntry

STAGES = ("reading", "planned", "organ map", "screening", "writing")


def _ignore(what: str) -> None:
    """Nobody is watching."""


def screen_series(
    instances: Sequence[Path] | Sequence[InstanceHeader],
    *,
    settings: Settings,
    others: Sequence[Sequence[Path] | Sequence[InstanceHeader]] = (),
    out_directory: Path | None = None,
    revision: int = 1,
    predecessor: Path | None = None,
    on_stage: Callable[[str], None] = _ignore,
    on_detail: Callable[[str], None] = _ignore,
) -> Report:
    """Screen one CT series.

    Parameters
    ----------
    instances
        The series' files, any order, or their headers where they have been read already.
    settings
        Effective configuration.
    others
        The other series of the study, as far as they are known; each screening runs on the one that suits it best.
    out_directory
        An existing folder that receives ``report.json``, ``organ_map.nii.gz``, ``organ_map.json``,
        ``key_images/*.png`` and ``objects/*.dcm``. ``None`` writes nothing.
    revision
        Revision of the scan.
    predecessor
        Results folder of the revision before it, which the report names as what it replaces.
    on_stage
        Called with each member of :data:`STAGES` as it begins.
    on_detail
        Called within a stage with what is done at the moment, in words for people.

    Raises
    ------
    InputRefusedError
        The series cannot be used; carries the coded reason.
    PackError, InferenceError
        No usable network.
    OSError
        The disk is full or read-only; ``report.json`` may be there already.
    """
    from appliance.anatomy.coverage import regions
    from appliance.anatomy.derived import Anatomy
    from appliance.anatomy.plausibility import implausible
    from appliance.anatomy.stages import map_in_stages
    from appliance.dicom.image.volume import build_scan
    from appliance.screenings.guards import airway_noise_hu, judge

    started = time.monotonic()
    on_stage("reading")
    scan = build_scan(instances)
    decoded = time.monotonic()

    runtime = _runtime(settings)
    snapshot = runtime.snapshot()  # one choice of packs from here to the report
    planned = plan(scan, set(snapshot.providers), settings.screenings, _study(instances, others))
    on_stage("planned")

    maps: list[OrganMap] = []
    organs: OrganMap | None = None
    anatomy: Anatomy | None = None
    image: ImageJudgement | None = None
    coverage: tuple[str, ...] = ()
    if planned.needs_organ_map:
        on_stage("organ map")
        maps, organs = map_in_stages(scan.volume, snapshot.packs, snapshot.providers, settings.packs.prefer, on_detail)
        anatomy = Anatomy(scan.volume, organs, implausible(organs))
        image, coverage = judge(scan, organs, anatomy.doubts), regions(organs)
    mapped = time.monotonic()

    on_stage("screening")
    results = []
    for entry in planned.entries:
        on_detail(entry.screening.title)
        results.append(_timed(entry, partial(run_entry, entry, scan, anatomy, image)))
    finished = time.monotonic()
    report = Report(
        appliance_version=appliance.__version__,
        config_digest=settings.digest(),
        scan=scan,
        coverage=coverage,
        contrast=image.contrast if image is not None else scan.acquisition.contrast_tag.value,
        packs=tuple(item.pack for item in maps),
        screenings=tuple(results),
        timings={
            "decode_s": decoded - started,
            "organ_map_s": mapped - decoded,
            "screenings_s": finished - mapped,
            "total_s": finished - started,
        },
        shared_seconds=dict(anatomy.seconds) if anatomy is not None else {},
        revision=revision,
        air_hu=image.air_hu if image is not None else None,
        noise_hu=airway_noise_hu(scan, organs) if organs is not None else None,
    )
    if out_directory is not None:
        on_stage("writing")
        _write(out_directory, report, scan, organs, instances, settings, predecessor)
        if organs is not None:
            _run_shadows(runtime, snapshot, scan, maps, organs, settings.box.packs)
    return report


def _study(
    own: Sequence[Path] | Sequence[InstanceHeader], others: Sequence[Sequence[Path] | Sequence[InstanceHeader]]
) -> tuple[SeriesSketch, Sequence[SeriesSketch]] | None:
    """Sketch the series of a study; what cannot be used is no choice."""
    from appliance.dicom.image.stack import sketch_series
    from appliance.errors import InputRefusedError

    sketches = []
    for series in others:
        with suppress(InputRefusedError):
            sketches.append(sketch_series(series))
    return (sketch_series(own), sketches) if sketches else None


def prepare(settings: Settings) -> None:
    """Open and self-test the packs before the first scan comes.

    Raises
    ------
    PackError, InferenceError
        No usable network.
    """
    _runtime(settings).snapshot()


def take_fallbacks(settings: Settings) -> list[Fallback]:
    """Return the packs that were taken out of use since the last call."""
    return _runtime(settings).take_fallbacks()


def _runtime(settings: Settings) -> Runtime:
    from appliance.packs.rules import Rules
    from appliance.packs.runtime import Computing

    return _runtime_of(Rules.from_settings(settings), Computing.from_settings(settings))


@lru_cache(maxsize=1)
def _runtime_of(rules: Rules, computing: Computing) -> Runtime:
    """Keep the compiled networks for the next scan; a child process screens many."""
    from appliance.packs.runtime import Runtime

    return Runtime(rules, computing)


def _run_shadows(
    runtime: Runtime, snapshot: Snapshot, scan: Scan, maps: list[OrganMap], organs: OrganMap, root: Path
) -> None:
    """Run shadow packs after the report is written; whatever happens to one changes nothing else."""
    import structlog

    from appliance.anatomy.stages import map_region
    from appliance.packs import shadow

    active = {item.pack.name: item for item in maps}
    for name, version in snapshot.shadows:
        if name not in active or not shadow.begin(root, name, version):
            continue
        try:
            opened = runtime.shadow(name, version)
            found = shadow.compare(active[name], map_region(scan.volume, opened, organs))
            shadow.record(root, name, version, active[name].pack.version, found)
        except Exception as error:  # noqa: BLE001  # a shadow must not cost the scan anything
            structlog.get_logger().error("shadow_failed", pack=name, version=version, error=type(error).__name__)
        finally:
            shadow.end(root)


def _timed(entry: PlanEntry, run: Callable[[], Outcome]) -> ScreeningResult:
    """Run one screening; a defect in one must not cost the patient the others."""
    import structlog

    started = time.monotonic()
    try:
        outcome = run()
    except Exception as error:  # noqa: BLE001  # any defect of one screening ends here, is logged and is reported
        structlog.get_logger().error(
            "screening_failed", screening=entry.screening.name, error=type(error).__name__, exc_info=True
        )
        text = f"an internal error ({type(error).__name__}) stopped this screening; the others are not affected"
        outcome = Outcome(Status.FAILED, reason=Reason(ReasonCode.SCREENING_FAILED, text))
    return ScreeningResult(entry.screening.name, outcome, time.monotonic() - started)


def _write(
    folder: Path,
    report: Report,
    scan: Scan,
    organs: OrganMap | None,
    instances: Sequence[Path] | Sequence[InstanceHeader],
    settings: Settings,
    predecessor: Path | None = None,
) -> None:
    import structlog

    from appliance.durable import is_the_box_s
    from appliance.results.key_image import write_key_image
    from appliance.results.missing import MissingKind, note_missing
    from appliance.results.objects.write import write_objects
    from appliance.results.organ_map_file import write_organ_map
    from appliance.results.table import title_of

    # the report first: a full disk then costs pictures and not the result
    text = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    images = folder / "key_images"
    images.mkdir(exist_ok=True)
    for result in report.screenings:
        if result.outcome.evidence is not None:
            write_key_image(images / f"{result.name}.png", scan, title_of(result.name), result.outcome.evidence)
    if organs is not None:
        write_organ_map(folder, organs)
    try:
        write_objects(folder, scan, report, organs, instances, settings, predecessor=predecessor)
    except Exception as error:  # the report is on disk; no defect of an object may cost it
        if isinstance(error, OSError) and is_the_box_s(error):
            raise  # objects that are not there would be missed by nobody: the scan comes again when there is space
        structlog.get_logger().error("result_objects_failed", error=type(error).__name__)
        note_missing(folder, [MissingKind(kind, type(error).__name__) for kind in settings.results.objects])
