"""The ``appliance`` command: one thin function per command, no logic, heavy imports only where they are used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance import __version__
from appliance.cli_alerts import alerts
from appliance.cli_options import json_option, with_settings
from appliance.cli_packs import packs
from appliance.errors import ApplianceError, ConfigurationError, InputRefusedError

if TYPE_CHECKING:
    from appliance.config import Settings

EXIT_WRONG_USE = 2
EXIT_INPUT_REFUSED = 3
EXIT_INTERNAL = 4


class _Group(click.Group):
    """Turns this package's exceptions into the documented exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"appliance: {error}", err=True)
            ctx.exit(EXIT_WRONG_USE)
        except InputRefusedError as error:
            click.echo(f"appliance: {error} [{error.reason.code}]", err=True)
            ctx.exit(EXIT_INPUT_REFUSED)
        except ApplianceError as error:
            click.echo(f"appliance: {error}", err=True)
            ctx.exit(EXIT_INTERNAL)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  # the last resort: a sentence and exit code 4 instead of a bare traceback
            import traceback

            traceback.print_exc()
            click.echo(
                f"appliance: internal failure ({type(error).__name__}); please report the lines above",
                err=True,
            )
            ctx.exit(EXIT_INTERNAL)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="appliance")
def main() -> None:
    """One scan, many screenings: the appliance beside the CT scanner.

    Not a certified medical device. Every result is an AI result that nobody has reviewed.
    """


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the demo's folder here instead of deleting it.")
def demo(paths: tuple[Path, ...], keep: Path | None) -> None:
    """Send the built-in test patient through the real DICOM port and print the findings.

    PATHS (DICOM files, folders or .zip files) are sent instead of the test patient when given.
    """
    from appliance.commands.demo import run

    sys.exit(run(paths, keep))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write report, organ map and key images into this folder.")
@json_option
@with_settings
def screen(paths: tuple[Path, ...], out: Path | None, as_json: bool, settings: Settings) -> None:
    """Screen DICOM files, folders or .zip files once; no service is needed."""
    from appliance.commands.screen import run

    sys.exit(run(paths, settings=settings, out=out, as_json=as_json))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
def serve(config_path: Path | None) -> None:
    """Run all services in this terminal, the alert board among them where it is configured."""
    from appliance.config import load
    from appliance.services.serve import commands, run

    settings = load(config_path)
    sys.exit(run(services=commands(config_path, board=settings.board is not None)))


def _service(name: str, settings: Settings) -> None:
    import importlib

    from appliance.logs import configure
    from appliance.services.lifecycle import stop_event_on_signals

    configure(settings.box.log_level, settings.box.log_format)
    stop = stop_event_on_signals()
    importlib.import_module(f"appliance.services.{name}").run(settings, stop)


@main.command()
@with_settings
def receive(settings: Settings) -> None:
    """Run the DICOM port."""
    _service("receive", settings)


@main.command()
@with_settings
def work(settings: Settings) -> None:
    """Run assembly and screening."""
    _service("work", settings)


@main.command()
@with_settings
def deliver(settings: Settings) -> None:
    """Run delivery of results."""
    _service("deliver", settings)


@main.command()
@with_settings
def health(settings: Settings) -> None:
    """Run health probes, MQTT and the disk keeper."""
    _service("health", settings)


@main.command()
@with_settings
def board(settings: Settings) -> None:
    """Run the alert board, where one is configured."""
    _service("board", settings)


@main.command("board-password")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of board.password_file.")
@with_settings
def board_password(out: Path | None, settings: Settings) -> None:
    """Set the password of the alert board; it is asked for, or read from a pipe."""
    from appliance.commands.board_password import run

    run(settings, out)


@main.command()
@json_option
@with_settings
def status(as_json: bool, settings: Settings) -> None:
    """Show queue, last scans, packs, disk and services; exit 0 healthy, 1 degraded, 2 down."""
    from appliance.commands.status import run

    sys.exit(run(settings, as_json=as_json))


@main.command()
@click.argument("scan", required=False)
@json_option
@with_settings
def results(scan: str | None, as_json: bool, settings: Settings) -> None:
    """Show what was found.

    SCAN is a database id, an accession number or a UID; without it, the last scans are listed.
    """
    from appliance.commands.results import show

    sys.exit(show(settings, scan, as_json=as_json))


@main.command()
@click.argument("scan")
@with_settings
def explain(scan: str, settings: Settings) -> None:
    """Say for every screening whether it ran, or why not, in a sentence."""
    from appliance.commands.results import explain as explain_scan

    sys.exit(explain_scan(settings, scan))


@main.command()
@click.argument("scan")
@with_settings
def retry(scan: str, settings: Settings) -> None:
    """Take up a refused, failed or parked scan again, once what stopped it is mended."""
    from appliance.commands.results import retry as retry_scan

    sys.exit(retry_scan(settings, scan))


@main.command()
@json_option
@with_settings
def doctor(as_json: bool, settings: Settings) -> None:
    """Check everything a field engineer must know; one line and a fix each."""
    from appliance.commands.doctor import run

    sys.exit(run(settings, as_json=as_json))


main.add_command(packs)
main.add_command(alerts)


@main.group()
def config() -> None:
    """The configuration: effective settings, and checking a file."""


@config.command("show")
@json_option
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
def config_show(config_path: Path | None, as_json: bool) -> None:
    """Print every setting with its value and where it comes from."""
    from appliance.config_reference import show

    click.echo(show(config_path, as_json=as_json))


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def config_check(file: Path) -> None:
    """Check a configuration file; a wrong one names the key, the value and what is allowed."""
    from appliance.config import load

    load(file)
    click.echo(f"{file}: correct")


@config.command("reference")
@click.option("--format", "shape", type=click.Choice(["toml", "schema", "markdown"]), default="toml")
def config_reference(shape: str) -> None:
    """Print the commented configuration, its JSON Schema, or the manual's page."""
    from appliance.config_reference import render

    click.echo(render(shape), nl=False)
