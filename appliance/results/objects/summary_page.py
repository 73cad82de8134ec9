"""The summary page: on one picture what every screening concluded, and that nobody has reviewed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.results.objects.fonts import font
from appliance.results.objects.words import detail, notice, status_word, title
from appliance.screenings.contract import Status, Urgency

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from appliance.results.report import Report, ScreeningResult

_WIDTH_PX, _MARGIN_PX, _LINE_PX, _GAP_PX = 1024, 24, 24, 12
_STATUS_X_PX, _DETAIL_X_PX = 250, 430
_WHITE, _GREY, _AMBER = (255, 255, 255), (205, 205, 205), (255, 190, 90)
_STATUS_RGB = {
    Status.FINDING: (255, 120, 105),
    Status.NORMAL: (140, 215, 140),
    Status.NOT_RUN: (190, 190, 190),
    Status.ABSTAINED: (235, 215, 120),
    Status.FAILED: (225, 150, 235),
}
_HEADINGS = {"en": "CT screening by AI", "zh": "CT 人工智能筛查"}
_ORDER = (Status.FINDING, Status.NORMAL, Status.ABSTAINED, Status.NOT_RUN, Status.FAILED)
_URGENCY_ORDER = (Urgency.URGENT, Urgency.SOON, Urgency.ROUTINE)


def draw_summary(report: Report, language: str, who: str = "") -> Image:
    """Draw the page, findings first, the most urgent on top.

    Parameters
    ----------
    report
        What was found.
    language
        ``"en"`` or ``"zh"``.
    who
        The patient, when that may stand in the pixels.
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
    page = Image.new("RGB", (_WIDTH_PX, height), (0, 0, 0))
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN_PX, 20), _HEADINGS[language], font=font(30, chinese=chinese), fill=_WHITE)
    draw.text((_MARGIN_PX, 66), notice(language), font=font(20, chinese=chinese), fill=_AMBER)
    if who:
        draw.text((_MARGIN_PX, 100), who, font=body, fill=_WHITE)
    y = top
    for result, lines in rows:
        draw.line([(_MARGIN_PX, y - 7), (_WIDTH_PX - _MARGIN_PX, y - 7)], fill=(60, 60, 60))
        draw.text((_MARGIN_PX, y), title(result.name, language), font=body, fill=_WHITE)
        colour = _STATUS_RGB[result.outcome.status]
        draw.text((_STATUS_X_PX, y), status_word(result, language), font=body, fill=colour)
        for place, line in enumerate(lines):
            draw.text((_DETAIL_X_PX, y + place * _LINE_PX), line, font=body, fill=_GREY)
        y += _LINE_PX * max(len(lines), 1) + _GAP_PX
    for line in foot:
        draw.text((_MARGIN_PX, y + _MARGIN_PX // 2), line, font=small, fill=(150, 150, 150))
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
