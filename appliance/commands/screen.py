"""``appliance screen``: every series in the given paths, screened here and now, without a service."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import appliance
from appliance.durable import is_the_box_s
from appliance.errors import ConfigurationError, InputRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console

    from appliance.config import Settings
    from appliance.dicom.image.files import SeriesFiles
    from appliance.reasons import Reason

EXIT_DONE = 0
EXIT_INPUT_REFUSED = 3


def run(paths: Sequence[Path], *, settings: Settings, out: Path | None, as_json: bool) -> int:
    """Screen and print.

    Parameters
    ----------
    paths
        DICOM files, folders, .zip files.
    settings
        Effective configuration.
    out
        Folder for the files of the result; one subfolder per series when there are several.
    as_json
        Print JSON: one object for one series, a list for several.

    Returns
    -------
    int
        0 when at least one series was screened, 3 when none could be used.
    """
    from rich.console import Console

    from appliance.dicom.image.files import read_inputs
    from appliance.logs import configure

    # a program reads the output and a person the table: only what needs attention is logged beside them
    configure("debug" if settings.box.log_level == "debug" else "warning", settings.box.log_format)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="appliance-screen-") as work:
        try:
            inputs = read_inputs(paths, Path(work))
        except InputRefusedError as error:
            return _print([_refusal(error.reason, None)], as_json=as_json, several=False)
        for path, reason in inputs.rejected:
            errors.print(f"{path.name}: {reason.text} [{reason.code}]", markup=False)
        reports = []
        for number, series in enumerate(inputs.series, start=1):
            folder = _folder(out, number, len(inputs.series))
            others = [other for other in inputs.series if other is not series and _same_study(other, series)]
            reports.append(_one_series(series, others, settings, folder, errors, number, len(inputs.series)))
    return _print(reports, as_json=as_json, several=len(inputs.series) > 1)


def _same_study(one: SeriesFiles, other: SeriesFiles) -> bool:
    return bool(one.study_instance_uid) and one.study_instance_uid == other.study_instance_uid


def _folder(out: Path | None, number: int, count: int) -> Path | None:
    if out is None:
        return None
    folder = out if count == 1 else out / f"series-{number}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {out}: the folder cannot be made: {error.strerror}") from error
    return folder


def _one_series(
    series: SeriesFiles,
    others: Sequence[SeriesFiles],
    settings: Settings,
    folder: Path | None,
    console: Console,
    number: int,
    count: int,
) -> dict[str, Any]:
    from appliance.screen import screen_series

    progress: AbstractContextManager[Any] = console.status("reading") if console.is_terminal else nullcontext()
    prefix = f"series {number} of {count}: " if count > 1 else ""
    with progress as spinner:
        at = {"stage": ""}

        def show(stage: str, detail: str = "") -> None:
            at["stage"] = stage
            if spinner is not None:
                spinner.update(prefix + stage + (f": {detail}" if detail else ""))

        def show_detail(detail: str) -> None:
            show(at["stage"], detail)

        try:
            report = screen_series(
                series.headers,
                settings=settings,
                others=[other.headers for other in others],
                out_directory=folder,
                on_stage=show,
                on_detail=show_detail,
            )
        except InputRefusedError as error:
            if folder is not None and count > 1:
                folder.rmdir()  # nothing was written for a series that cannot be used
            return _refusal(error.reason, series)
        except OSError as error:
            if folder is None or not is_the_box_s(error):
                raise
            raise ConfigurationError(
                f"--out {folder}: {error.strerror}; make room, or name another folder. What is there is not whole."
            ) from error
    return report.to_json()


def _refusal(reason: Reason, series: SeriesFiles | None) -> dict[str, Any]:
    return {
        "appliance": {"version": appliance.__version__},
        "scan": None
        if series is None
        else {
            "study_instance_uid": series.study_instance_uid,
            "series_instance_uid": series.series_instance_uid,
            "modality": series.modality,
            "slices": len(series.paths),
        },
        "refused": reason.to_json(),
        "screenings": [],
    }


def _print(reports: list[dict[str, Any]], *, as_json: bool, several: bool) -> int:
    from rich.console import Console

    from appliance.results.table import print_report

    if as_json:
        print(json.dumps(reports if several else reports[0], indent=1, ensure_ascii=False))  # noqa: T201
    else:
        console = Console(highlight=False)
        for report in reports:
            if "refused" in report:
                reason = report["refused"]
                print(f"not used: {reason['text']} [{reason['code']}]", file=sys.stderr)  # noqa: T201
            else:
                print_report(report, console)
    return EXIT_DONE if any("refused" not in report for report in reports) else EXIT_INPUT_REFUSED
