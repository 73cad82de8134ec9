"""Everything is said in both languages, with the same facts."""

import re

import pytest

from appliance.board import words
from appliance.board.pages import STATIC
from appliance.reasons import Reason, ReasonCode
from appliance.results.objects import words as of_results
from appliance.store.lifecycle import ScanState

TEMPLATES = STATIC.parent / "templates"


def facts(sentence: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", sentence))


@pytest.mark.parametrize("name", list(words.SENTENCES))
def test_each_sentence_is_there_in_both_languages_with_the_same_facts(name):
    said = words.SENTENCES[name]
    assert set(said) == set(words.LANGUAGES)
    assert all(said.values())
    assert facts(said["en"]) == facts(said["zh"])
    assert not re.search(r"[\u4e00-\u9fff]", said["en"])
    assert re.search(r"[\u4e00-\u9fff]", said["zh"]) or name == "acknowledged_by"


def test_every_sentence_is_used_and_every_used_one_exists():
    sources = [*TEMPLATES.glob("*.html"), *STATIC.parent.glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "words.py")
    for name in words.SENTENCES:
        assert f"'{name}'" in text or f'"{name}"' in text or name.startswith("sign_"), name


def test_every_state_and_every_reason_can_be_said_in_chinese():
    assert set(words.STATES) == set(ScanState)
    for code in ReasonCode:
        assert re.search(r"[\u4e00-\u9fff]", words.why(Reason(code, "in English"), "zh")), code
        assert words.why(Reason(code, "in English"), "en") == "in English"
    assert not set(words.SCAN_REASONS_ZH) & set(of_results.REASONS_ZH)


def test_hints_are_for_reasons_and_in_both_languages():
    for code, said in words.HINTS.items():
        assert set(said) == {"en", "zh"}, code
        assert words.hint(Reason(code, ""), "en") == said["en"]
    assert words.hint(Reason(ReasonCode.CONTRAST_ENHANCED, ""), "en") == ""
