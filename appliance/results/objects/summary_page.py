"""The summary page: on one picture what every screening concluded, and that nobody has reviewed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.results.objects.fonts import font
from appliance.results.objects.words import detail, notice, status_word, title
from appliance.screenings.contract import Status, Urgency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from appliance.results.report import Report, ScreeningResult

_WIDTH_PX, _MARGIN_PX, _LINE_PX, _GAP_PX = 1024, 24, 24, 12
_STATUS_X_PX, _DETAIL_X_PX = 250, 430
_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a page, RGB.

    Attributes
    ----------
    ground, strong, plain, faint, line
        Background; titles and names; sentences; the foot; lines between the rows.
    notice
        The words that say what this is.
    statuses
        Words of each outcome.
    """

    ground: _Colour
    strong: _Colour
    plain: _Colour
    faint: _Colour
    line: _Colour
    notice: _Colour
    statuses: Mapping[Status, _Colour]


#: As viewers show images.
SCREEN = Palette(
    ground=(0, 0, 0),
    strong=(255, 255, 255),
    plain=(205, 205, 205),
    faint=(150, 150, 150),
    line=(60, 60, 60),
    notice=(255, 190, 90),
    statuses={
        Status.FINDING: (255, 120, 105),
        Status.NORMAL: (140, 215, 140),
        Status.NOT_RUN: (190, 190, 190),
        Status.ABSTAINED: (235, 215, 120),
        Status.FAILED: (225, 150, 235),
    },
)
#: To be printed.
PAPER = Palette(
    ground=(255, 255, 255),
    strong=(0, 0, 0),
    plain=(45, 45, 45),
    faint=(95, 95, 95),
    line=(200, 200, 200),
    notice=(150, 75, 0),
    statuses={
        Status.FINDING: (175, 20, 10),
        Status.NORMAL: (15, 105, 25),
        Status.NOT_RUN: (95, 95, 95),
        Status.ABSTAINED: (125, 95, 0),
        Status.FAILED: (125, 15, 135),
    },
)
_HEADINGS = {"en": "CT screening by AI", "zh": "CT 人工智能筛查"}
_ORDER = (Status.FINDING, Status.NORMAL, Status.ABSTAINED, Status.NOT_RUN, Status.FAILED)
_URGENCY_ORDER = (Urgency.URGENT, Urgency.SOON, Urgency.ROUTINE)


def draw_summary(report: Report, language: str, who: str = "", *, palette: Palette = SCREEN) -> Image:
    """Draw the page, findings first, the most urgent on top.

    Parameters
    ----------
    report
        What was found.
    language
        ``"en"`` or ``"zh"``.
    who
        The patient, when that may stand in the pixels.
    palette
        Its colours.
    """
    from PIL import Image, ImageDraw

    chinese = language == "zh" or bool(who)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    body, small = font(18, chinese=chinese), font(15, chinese=chinese)
    width = _WIDTH_PX - _DETAIL_X_PX - _MARGIN_PX
    ordered = sorted(report.screenings, key=_rank)
    rows = [(result, wrap(measure, detail(result, language), body, width)) for result in ordered]
    foot = [line for text in _foot(report) for line in wrap(measure, text, small, _WIDTH_PX - 2 * _MARGIN_PX)]
    top = 128 + (_LINE_PX if who else 0)
    height = top + sum(_LINE_PX * max(len(lines), 1) + _GAP_PX for _, lines in rows) + 20 * len(foot) + 2 * _MARGIN_PX
    page = Image.new("RGB", (_WIDTH_PX, height), palette.ground)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN_PX, 20), _HEADINGS[language], font=font(30, chinese=chinese), fill=palette.strong)
    draw.text((_MARGIN_PX, 66), notice(language), font=font(20, chinese=chinese), fill=palette.notice)
    if who:
        draw.text((_MARGIN_PX, 100), who, font=body, fill=palette.strong)
    y = top
    for result, lines in rows:
        draw.line([(_MARGIN_PX, y - 7), (_WIDTH_PX - _MARGIN_PX, y - 7)], fill=palette.line)
        draw.text((_MARGIN_PX, y), title(result.name, language), font=body, fill=palette.strong)
        colour = palette.statuses[result.outcome.status]
        draw.text((_STATUS_X_PX, y), status_word(result, language), font=body, fill=colour)
        for place, line in enumerate(lines):
            draw.text((_DETAIL_X_PX, y + place * _LINE_PX), line, font=body, fill=palette.plain)
        y += _LINE_PX * max(len(lines), 1) + _GAP_PX
    for line in foot:
        draw.text((_MARGIN_PX, y + _MARGIN_PX // 2), line, font=small, fill=palette.faint)
        y += 20
    return page


def wrap(draw: ImageDraw, text: str, with_font: object, width_px: float) -> list[str]:
    """Break text into lines that fit: at spaces, and between Chinese characters."""
    lines, line = [], ""
    for piece in _pieces(text):
        if line and draw.textlength((line + piece).rstrip(), font=with_font) > width_px:  # type: ignore[arg-type]
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> list[str]:
    pieces, current = [], ""
    for character in text:
        current += character
        if character == " " or ord(character) > 0x2E7F:  # from here on scripts without spaces between words
            pieces.append(current)
            current = ""
    return [*pieces, current]


def _rank(result: ScreeningResult) -> tuple[int, int]:
    return _ORDER.index(result.outcome.status), _URGENCY_ORDER.index(result.outcome.urgency)


def _foot(report: Report) -> list[str]:
    packs = ", ".join(f"{pack.name} {pack.version} ({pack.precision})" for pack in report.packs)
    return [f"appliance {report.appliance_version}; {packs or 'no network was needed'}; revision {report.revision}"]
