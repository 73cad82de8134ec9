"""The child process that screens: it reads pixels and runs networks, so it may grow, hang or crash, and is replaced.

It knows no database. One JSON line per job comes in on standard input, JSON lines go out on a descriptor of its own,
and what libraries print cannot get between them. It dies with its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from appliance.durable import is_the_box_s
from appliance.errors import ConfigurationError, InputRefusedError, PackError
from appliance.services.tether import tie_to_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from appliance.config import Settings

SCREEN_SERIES = "appliance.screen:screen_series"

# Loaded before the first scan comes; what fails here is the fault of the box and of no scan.
_LOADED_EARLY = (
    "appliance.anatomy.mapper",
    "appliance.dicom.image.volume",
    "scipy.ndimage",
    "PIL.ImageDraw",
    "nibabel",
)
_USUAL_ENGINE = "openvino"  # where it cannot be loaded, the other one is used

_NICENESS = 5  # receiving comes first
_OOM_SCORE_ADJUSTMENT = 500  # when the machine runs out of memory, the kernel takes this process and not the receiver


class ScreenSeries(Protocol):
    """What :func:`appliance.screen.screen_series` offers this process."""

    def __call__(
        self,
        paths: Sequence[Path],
        *,
        settings: Settings,
        out_directory: Path,
        revision: int,
        predecessor: Path | None,
        on_stage: Callable[[str], None],
        others: Sequence[Sequence[Path]],
    ) -> object:
        """Screen one series and write its report into ``out_directory``."""
        ...


class _Line:
    """The way out: one JSON object per line, each written at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, event: str, **facts: Any) -> None:
        self._stream.write(json.dumps({"event": event, **facts}) + "\n")
        self._stream.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve jobs until standard input ends."""
    options = _options(arguments)
    if not tie_to_parent(options.parent, signal.SIGKILL):
        return
    _be_modest()
    os.set_inheritable(options.line, False)
    with open(options.line, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor, not a path
        line = _Line(stream)
        settings = _settings(sys.stdin.readline())
        screen = _load(options.screen_with)
        if options.screen_with == SCREEN_SERIES:
            _prepare(settings)
            _say_fallbacks(settings, line)
        line.say("ready", pid=os.getpid())
        for text in sys.stdin:
            _serve(json.loads(text), screen, settings, line)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="screener", description="Started by the work service only.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    # For tests that need a screening that crashes, hangs or grows; no configuration leads here.
    parser.add_argument("--screen-with", default=SCREEN_SERIES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _be_modest() -> None:
    faulthandler.enable()
    # Both may be sent to the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJUSTMENT), encoding="ascii")


def _settings(text: str) -> Settings:
    from appliance import logs
    from appliance.config import Settings

    settings = Settings.model_validate_json(text)
    logs.configure(settings.box.log_level, settings.box.log_format)
    return settings


def _load(dotted: str) -> ScreenSeries:
    module, _, name = dotted.partition(":")
    if dotted == SCREEN_SERIES:
        for early in _LOADED_EARLY:
            importlib.import_module(early)
        with contextlib.suppress(ImportError):
            importlib.import_module(_USUAL_ENGINE)
    found: ScreenSeries = getattr(importlib.import_module(module), name)
    return found


def _prepare(settings: Settings) -> None:
    """Test the packs before the first scan comes; what cannot be mended here is said with the first scan."""
    from appliance.errors import InferenceError
    from appliance.screen import prepare

    try:
        prepare(settings)
    except (PackError, ConfigurationError, InferenceError) as error:
        structlog.get_logger().error("packs_unusable", why=str(error))


def _say_fallbacks(settings: Settings, line: _Line) -> None:
    """Tell the parent, which knows the database, which packs were taken out of use."""
    screen = sys.modules.get("appliance.screen")
    for item in screen.take_fallbacks(settings) if screen is not None else ():
        line.say("fallback", pack=item.name, version=item.version, instead=item.instead)


def _serve(job: dict[str, Any], screen: ScreenSeries, settings: Settings, line: _Line) -> None:
    number = int(job["job"])

    def say_stage(stage: str) -> None:
        _say_fallbacks(settings, line)
        line.say("stage", job=number, stage=stage)

    try:
        screen(
            [Path(path) for path in job["paths"]],
            settings=settings,
            out_directory=Path(job["out"]),
            revision=int(job["revision"]),
            predecessor=Path(job["predecessor"]) if "predecessor" in job else None,
            on_stage=say_stage,
            others=[[Path(path) for path in series] for series in job.get("others", ())],
        )
    except InputRefusedError as error:
        line.say("refused", job=number, code=error.reason.code.value, text=error.reason.text)
    except (PackError, ConfigurationError) as error:
        # The same would happen to every scan: it is the box that must be mended, and the scan waits for that.
        _say_fallbacks(settings, line)
        line.say("unable", job=number, error=type(error).__name__, text=str(error))
    except OSError as error:
        if is_the_box_s(error):
            line.say("unable", job=number, error=type(error).__name__, text=f"{os.strerror(error.errno or 0)}.")
        else:
            _say_error(number, error, line)
    except Exception as error:  # noqa: BLE001  # whatever one scan does to this process is that scan's lost attempt
        _say_error(number, error, line)
    else:
        line.say("result", job=number)


def _say_error(number: int, error: Exception, line: _Line) -> None:
    # The message of a foreign exception may quote a header; where it was raised never does.
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    line.say("error", job=number, error=type(error).__name__, where=where)


if __name__ == "__main__":
    main()
