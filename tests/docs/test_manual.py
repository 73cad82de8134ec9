"""The manual knows every reason, command, measurement and topic; what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from appliance.cli import main
from appliance.phantom import Calcification, PhantomOptions, WedgeFracture
from appliance.reasons import ReasonCode
from appliance.screenings.registry import screenings
from tests.screenings.patients import examine

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def codes_in_the_manual() -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)` \|", page("reasons.md"), flags=re.MULTILINE))


def test_every_reason_code_is_in_the_manual_and_no_other():
    assert codes_in_the_manual() == {code.value for code in ReasonCode}


def commands() -> list[str]:
    found = []
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            found += [f"{name} {sub}" for sub in command.commands]
        else:
            found.append(name)
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_manual(command):
    group, _, sub = command.partition(" ")
    lines = [line for line in page("interfaces.md").splitlines() if line.startswith("| `appliance")]
    assert any(f"`{group}`" in line or f"appliance {group}" in line for line in lines)
    if sub:
        assert any(f"appliance {group}" in line and sub in line for line in lines)


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_help_text(command):
    current: click.Command = main
    for part in command.split():
        assert isinstance(current, click.Group)
        current = current.commands[part]
    assert current.help


#: A patient who has something of everything, coarse but whole.
ILL = PhantomOptions(
    slice_thickness_mm=3.0,
    slice_spacing_mm=3.0,
    pixel_spacing_mm=1.6,
    rows=256,
    columns=256,
    emphysema_fraction=0.1,
    effusion_left_ml=300.0,
    wedge_fracture=WedgeFracture("L1", 30.0),
    calcifications=(Calcification(),),
    kidney_stone_diameter_mm=8.0,
    liver_hu=30.0,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(screenings()))
def test_every_measurement_name_is_in_the_manual(name):
    table = page("interfaces.md")
    outcome, _ = examine(screenings()[name], ILL)
    assert outcome.measurements
    for measurement in outcome.measurements:
        assert f"| `{measurement.name}` | `{measurement.unit}` |" in table


@pytest.mark.parametrize("name", list(screenings()))
def test_every_screening_has_its_page(name):
    text = page(f"screenings/{name}.md")
    assert text.startswith(f"# `{name}`")
    for part in ("**Definition.**", "**May run when**", "**Abstains when**", "**Limits.**", f"pictures/{name}.png"):
        assert part in text
    assert f"(screenings/{name}.md)" in page("screenings.md")
    assert screenings()[name].title


def test_links_within_the_manual_lead_somewhere():
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_transfer_syntax_and_status_is_in_the_manual():
    from appliance.dicom.network import commitment_data, negotiation, normalized_messages, storage_service
    from appliance.dicom.network.transfer_syntaxes import RECEIVED_TRANSFER_SYNTAXES

    text = page("dicom.md")
    for uid, name in RECEIVED_TRANSFER_SYNTAXES.items():
        assert f"| {name} | {uid} |" in text
    public = {name: value for name, value in vars(storage_service).items() if name.isupper() and name[0] != "_"}
    statuses = [value for value in public.values() if isinstance(value, int)]
    assert len(statuses) >= 3
    for status in statuses:
        assert f"`0x{status:04X}`" in text
    public = {name: value for name, value in vars(normalized_messages).items() if name.isupper() and name[0] != "_"}
    codes = [value for value in public.values() if isinstance(value, int) and value <= 0xFFFF]
    assert len(codes) >= 10
    for code in [*codes, *commitment_data.FAILURE_WORDS]:
        assert f"`0x{code:04X}`" in text
    for code in codes:
        assert f"`0x{code:04X}`" in page("conformance.md")
    for rejection in vars(negotiation).values():
        if isinstance(rejection, negotiation.Rejection):
            source = {1: "user", 3: "presentation"}[rejection.source]
            assert f"| {rejection.source} {source} | {rejection.diagnostic} " in text


def test_every_topic_is_in_the_manual():
    from appliance.health.schemas import TOPICS

    for leaf in TOPICS:
        assert f"| `appliances/<box>/{leaf}` |" in page("interfaces.md")


def test_every_bin_edge_is_in_the_manual():
    from appliance.health.drift_bins import INPUT_EDGES, MEASUREMENT_EDGES

    for name, edges in [*((key.value, value) for key, value in INPUT_EDGES.items()), *MEASUREMENT_EDGES.items()]:
        assert f"| `{name}` | {', '.join(f'{edge:g}' for edge in edges)} |" in page("fleet.md")


def test_every_problem_of_health_is_in_the_manual():
    from appliance.health.model import Problem

    documented = set(
        re.findall(
            r"^\| `([a-z_]+)` \|",
            page("fleet.md").partition("## What a problem means")[2].partition("\n## ")[0],
            flags=re.MULTILINE,
        )
    )
    assert documented == {problem.value for problem in Problem}
