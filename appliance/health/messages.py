"""Every message by its topic below ``appliances/<box>/``; the shipped schemas and the manual are held to this."""

from __future__ import annotations

from appliance.health.command_model import Command, CommandName, Diagnostics, Reply
from appliance.health.drift_model import Drift
from appliance.health.model import MESSAGES as _MESSAGES
from appliance.health.model import Message

MESSAGES: dict[str, type[Message]] = {
    **_MESSAGES,
    "drift": Drift,
    "diagnostics": Diagnostics,
    "cmd/reply": Reply,
}
"""What a box publishes."""

COMMANDS: dict[str, type[Message]] = {f"cmd/{name.value}": Command for name in CommandName}
"""What it listens to, where that is switched on."""
