"""The commands ``appliance alerts …``: thin functions, as in :mod:`appliance.cli`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from appliance.cli_options import json_option, with_settings

if TYPE_CHECKING:
    from appliance.config import Settings


@click.group()
def alerts() -> None:
    """Alerts: what somebody should look at soon."""
    from appliance.logs import configure

    configure("warning", "text")


@alerts.command("list")
@click.option("--all", "everything", is_flag=True, help="The newest alerts, acknowledged or not, the newest first.")
@json_option
@with_settings
def alerts_list(everything: bool, as_json: bool, settings: Settings) -> None:
    """List what nobody has acknowledged, the most urgent first."""
    from appliance.commands.alerts import show

    sys.exit(show(settings, everything=everything, as_json=as_json))


@alerts.command("acknowledge")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--by", "name", required=True, help="Who has seen it.")
@with_settings
def alerts_acknowledge(number: int, name: str, settings: Settings) -> None:
    """Record that a person has seen the alert NUMBER; the first name stays."""
    from appliance.commands.alerts import acknowledge

    sys.exit(acknowledge(settings, number, name))
