"""Captures are colour pictures that say what they are; the patient's name is in them only when that is configured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from appliance.results.objects.capture import captures
from appliance.results.objects.fonts import chinese_font, font
from appliance.results.objects.general import Making
from appliance.results.objects.source import read_source
from appliance.results.objects.summary_page import draw_summary, wrap


def test_one_page_a_scan_and_one_a_finding(plain):
    found = plain.named("capture")
    assert len(found) == 4
    for ds in found:
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert (ds.BurnedInAnnotation, ds.PhotometricInterpretation, ds.Modality) == ("YES", "RGB", "OT")
        assert ds.SeriesDescription.startswith("AI")
        assert ds.SeriesNumber == 9003
        assert (np.ptp(ds.pixel_array.astype(int), axis=2) > 60).sum() > 100  # coloured words


def amber(picture) -> int:
    """How many pixels have the colour of the notice."""
    return int((np.abs(np.asarray(picture).astype(int) - (255, 190, 90)).max(axis=-1) < 30).sum())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_notice_is_burned_in(plain, language):
    if language == "zh" and chinese_font() is None:
        pytest.skip("no font with Chinese glyphs on this machine")
    assert amber(draw_summary(plain.report, language)) > 200
    assert all(amber(ds.pixel_array) > 200 for ds in plain.named("capture"))


def test_a_chinese_glyph_is_drawn_and_no_empty_box():
    if chinese_font() is None:
        pytest.skip("no font with Chinese glyphs on this machine")
    shapes = [font(24, chinese=True).getmask(character).getbbox() for character in "肺肝"]
    pixels = [bytes(font(24, chinese=True).getmask(character)) for character in "肺肝"]
    assert all(shapes)
    assert pixels[0] != pixels[1]


def test_the_name_is_in_the_pixels_only_when_configured(plain):
    source = read_source(plain.scan, plain.files)
    from datetime import UTC, datetime

    making = Making(source, plain.report, "box", 9001, datetime.now(UTC))
    without = {name: ds.PixelData for name, ds in captures(making, "en", patient_name=False)}
    anonymous = dict(without)
    source.modules.PatientName = "Another^Person"
    again = {name: ds.PixelData for name, ds in captures(making, "en", patient_name=False)}
    assert again == anonymous  # no pixel depends on who it is
    named = {name: ds.PixelData for name, ds in captures(making, "en", patient_name=True)}
    assert all(named[name] != anonymous[name] for name in anonymous)


def test_long_lines_are_broken_where_they_may():
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    plain_font = font(18, chinese=False)
    lines = wrap(draw, "one two three four five six seven eight nine ten", plain_font, 120)
    assert len(lines) > 2
    assert " ".join(lines) == "one two three four five six seven eight nine ten"
    assert all(draw.textlength(line, font=plain_font) <= 120 for line in lines)
    assert wrap(draw, "", plain_font, 120) == []


def test_without_a_chinese_font_the_pages_are_in_english(plain, monkeypatch):
    from datetime import UTC, datetime

    from appliance.results.objects import capture

    monkeypatch.setattr(capture, "chinese_font", lambda: None)
    making = Making(read_source(plain.scan, plain.files), plain.report, "box", 9001, datetime.now(UTC))
    chosen = {name: ds.PixelData for name, ds in captures(making, "zh", patient_name=False)}
    english = {name: ds.PixelData for name, ds in captures(making, "en", patient_name=False)}
    assert chosen == english
