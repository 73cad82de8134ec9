"""Every message by its topic below ``appliances/<box>/``; the shipped schemas and the manual are held to this."""

from __future__ import annotations

from appliance.health.drift_model import Drift
from appliance.health.model import MESSAGES as _MESSAGES
from appliance.health.model import Message

MESSAGES: dict[str, type[Message]] = {**_MESSAGES, "drift": Drift}
