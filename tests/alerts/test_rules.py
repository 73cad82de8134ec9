"""The configuration decides what raises an alert and who is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from appliance.config import Settings
from appliance.services.alert_rules import alert_rules
from appliance.store.alert_rules import AlertChannel, AlertRules, ChannelKind


def rules(**alerts: Any) -> AlertRules:
    return alert_rules(Settings.model_validate({"alerts": alerts}))


def test_by_default_urgent_findings_raise_an_alert_and_nobody_but_the_board_shows_it():
    assert rules() == AlertRules("urgent", {}, ())


def test_levels_are_those_of_the_configuration():
    found = rules(urgency="never", screenings={"aorta": "soon", "emphysema": "never", "liver_fat": "default"})
    assert found.least_urgency is None
    assert found.screenings == {"aorta": "soon", "emphysema": None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"urgency": "high"},
        {"screenings": {"aorta": "loud"}},
        {"screenings": {"no_such_screening": "soon"}},
        {"command": ["lamp"]},
        {"escalate_after_min": -1},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        rules(**wrong)


def test_every_configured_channel_is_told():
    tree = {
        "alerts": {"command": ["/usr/bin/true"]},
        "health": {"mqtt": {"host": "fleet.example"}},
        "deliver": {
            "hl7": [
                {"name": "ris", "address": "10.0.0.1"},
                {"name": "archive", "address": "10.0.0.2", "sends": ["results"]},
            ]
        },
    }
    assert alert_rules(Settings.model_validate(tree)).channels == (
        AlertChannel(ChannelKind.COMMAND),
        AlertChannel(ChannelKind.MQTT),
        AlertChannel(ChannelKind.HL7, "ris"),
    )
