"""The ``appliance`` command: one thin function per command, no logic, heavy imports only where they are used."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance import __version__
from appliance.errors import ApplianceError, ConfigurationError, InputRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

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


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config`` and hand the effective settings to the command."""

    @click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
    @functools.wraps(command)
    def wrapper(*args: Any, config_path: Path | None, **kwargs: Any) -> Any:
        from appliance.config import load

        return command(*args, settings=load(config_path), **kwargs)

    return wrapper


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people."
)


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
@_json_option
@_with_settings
def screen(paths: tuple[Path, ...], out: Path | None, as_json: bool, settings: Settings) -> None:
    """Screen DICOM files, folders or .zip files once; no service is needed."""
    from appliance.commands.screen import run

    sys.exit(run(paths, settings=settings, out=out, as_json=as_json))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (TOML).")
def serve(config_path: Path | None) -> None:
    """Run all four services in this terminal."""
    from appliance.config import load
    from appliance.services.serve import run

    load(config_path)
    sys.exit(run(config_path))


def _service(name: str, settings: Settings) -> None:
    import importlib

    from appliance.logs import configure
    from appliance.services.lifecycle import stop_event_on_signals

    configure(settings.box.log_level, settings.box.log_format)
    stop = stop_event_on_signals()
    importlib.import_module(f"appliance.services.{name}").run(settings, stop)


@main.command()
@_with_settings
def receive(settings: Settings) -> None:
    """Run the DICOM port."""
    _service("receive", settings)


@main.command()
@_with_settings
def work(settings: Settings) -> None:
    """Run assembly and screening."""
    _service("work", settings)


@main.command()
@_with_settings
def deliver(settings: Settings) -> None:
    """Run delivery of results."""
    _service("deliver", settings)


@main.command()
@_with_settings
def health(settings: Settings) -> None:
    """Run health probes, MQTT and the disk keeper."""
    _service("health", settings)


@main.command()
@_json_option
@_with_settings
def status(as_json: bool, settings: Settings) -> None:
    """Show queue, last scans, packs, disk and services; exit 0 healthy, 1 degraded, 2 down."""
    from appliance.commands.status import run

    sys.exit(run(settings, as_json=as_json))


@main.command()
@click.argument("scan", required=False)
@_json_option
@_with_settings
def results(scan: str | None, as_json: bool, settings: Settings) -> None:
    """Show what was found.

    SCAN is a database id, an accession number or a UID; without it, the last scans are listed.
    """
    from appliance.commands.results import show

    sys.exit(show(settings, scan, as_json=as_json))


@main.command()
@click.argument("scan")
@_with_settings
def explain(scan: str, settings: Settings) -> None:
    """Say for every screening whether it ran, or why not, in a sentence."""
    from appliance.commands.results import explain as explain_scan

    sys.exit(explain_scan(settings, scan))


@main.command()
@click.argument("scan")
@_with_settings
def retry(scan: str, settings: Settings) -> None:
    """Take up a failed or parked scan again, once what stopped it is mended."""
    from appliance.commands.results import retry as retry_scan

    sys.exit(retry_scan(settings, scan))


@main.command()
@_json_option
@_with_settings
def doctor(as_json: bool, settings: Settings) -> None:
    """Check everything a field engineer must know; one line and a fix each."""
    from appliance.commands.doctor import run

    sys.exit(run(settings, as_json=as_json))


@main.group()
def packs() -> None:
    """Model packs: the networks on this box."""
    from appliance.logs import configure

    configure("warning", "text")


@packs.command("list")
@_json_option
@_with_settings
def packs_list(as_json: bool, settings: Settings) -> None:
    """List the installed packs."""
    from appliance.commands.packs import list_packs

    list_packs(settings, as_json=as_json)


@packs.command("show")
@click.argument("name")
@_json_option
@_with_settings
def packs_show(name: str, as_json: bool, settings: Settings) -> None:
    """Show what a pack provides, its evidence and its limits.

    NAME is a pack in use, NAME/VERSION an installed one, or a folder.
    """
    from appliance.commands.packs import show_pack

    show_pack(settings, name, as_json=as_json)


@packs.command("verify")
@_with_settings
def packs_verify(settings: Settings) -> None:
    """Check every pack's digests and run its test vectors on this machine."""
    from appliance.commands.packs import verify_packs

    sys.exit(0 if verify_packs(settings) else EXIT_INTERNAL)


@packs.command("keygen")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", default="packs", show_default=True, help="First part of the two files' names.")
@click.option("--role", type=click.Choice(["site", "vendor", "release"]), default="site", show_default=True)
@click.option("--holder", required=True, help="Whose key it is, in words.")
@click.option("--days", type=click.IntRange(1, 3660), default=730, show_default=True, help="Days until it expires.")
def packs_keygen(folder: Path, name: str, role: str, holder: str, days: int) -> None:
    """Make a key pair that signs packs: NAME.private.pem and NAME.public.json in FOLDER."""
    from appliance.commands.pack_life import keygen

    keygen(folder, name, role=role, holder=holder, days=days)


@packs.command("sign")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="NAME.private.pem, its public file beside.")
def packs_sign(folder: Path, key: Path) -> None:
    """Verify the pack in FOLDER and sign it (pack.sig)."""
    from appliance.commands.pack_life import sign_pack

    sign_pack(folder, key)


@packs.command("install")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--activate", "then_activate", is_flag=True, help="Use it from the next scan on.")
@_with_settings
def packs_install(source: Path, then_activate: bool, settings: Settings) -> None:
    """Install the pack in SOURCE (a folder or a zip file) once signature, files and self-test are good."""
    from appliance.commands.pack_life import install_pack

    install_pack(source, settings, then_activate=then_activate)


@packs.command("activate")
@click.argument("name")
@click.argument("version")
@_with_settings
def packs_activate(name: str, version: str, settings: Settings) -> None:
    """Use an installed VERSION from the next scan on; "shipped" is what came with the appliance."""
    from appliance.commands.pack_life import activate_pack

    activate_pack(name, version, settings)


@packs.command("rollback")
@click.argument("name")
@_with_settings
def packs_rollback(name: str, settings: Settings) -> None:
    """Return to the version that was active before."""
    from appliance.commands.pack_life import rollback_pack

    rollback_pack(name, settings)


@packs.command("shadow")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--off", is_flag=True, help="Stop it.")
@_json_option
@_with_settings
def packs_shadow(name: str, version: str | None, off: bool, as_json: bool, settings: Settings) -> None:
    """Run an installed VERSION beside the active one, or print how far they agree."""
    from appliance.commands.pack_life import shadow_pack

    shadow_pack(name, version, settings, off=off, as_json=as_json)


@packs.command("remove")
@click.argument("name")
@click.argument("version")
@_with_settings
def packs_remove(name: str, version: str, settings: Settings) -> None:
    """Delete an installed VERSION that is not in use."""
    from appliance.commands.pack_life import remove_pack

    remove_pack(name, version, settings)


@packs.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "kind", required=True, type=click.Choice(["nnunet", "onnx"]), help="What SOURCE is.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The pack's folder; must not exist yet.")
@click.option("--name", required=True, help="Name of the pack.")
@click.option("--version", "pack_version", default="0.1.0", show_default=True)
@click.option("--licence", default="", help="Licence of the weights; never guessed.")
@click.option("--licence-class", default="restricted", type=click.Choice(["open", "non-commercial", "restricted"]))
@click.option("--intended-use", default="", help="What it may be used for; never guessed.")
@click.option("--exclude", "exclusions", multiple=True, help="What it must not be used for.")
@click.option("--trained-on", multiple=True, help="Scans that it learned from.")
@click.option("--tested-on", multiple=True, help="Scans that no training step saw.")
@click.option("--labels", default="", help="Who or what made the labels.")
@click.option(
    "--map", "mapping", multiple=True, metavar="CLASS=STRUCTURE", help="What a class is; CLASS= leaves it out."
)
@click.option("--drop-unknown", is_flag=True, help="Leave out classes with no coded structure.")
@click.option("--weights", default="f16", type=click.Choice(["f16", "f32"]), show_default=True, help="As stored.")
@click.option("--spec", type=click.Path(path_type=Path), help="onnx: TOML that says what the file does not.")
@click.option("--fold", "folds", multiple=True, help="nnunet: folds to average; all of them when not given.")
@click.option("--checkpoint", default="checkpoint_final.pth", show_default=True, help="nnunet: file in each fold.")
@click.option("--orientation", default="auto", show_default=True, help="nnunet: axes of the training images, as RAS.")
@click.option("--resampling", default="nnunet", type=click.Choice(["nnunet", "area"]), show_default=True)
@click.option(
    "--step-size", default=0.5, type=click.FloatRange(0.25, 1.0), show_default=True, help="nnunet: of a tile."
)
@click.option("--mirror", is_flag=True, help="nnunet: average over mirrorings, up to eight times the work.")
@click.option("--skip-air", is_flag=True, help="nnunet: no tiles for the room around the patient.")
@click.option("--precision", "precisions", multiple=True, default=["f32"], type=click.Choice(["f32", "bf16"]))
def packs_import(
    source: Path,
    kind: str,
    out: Path,
    spec: Path | None,
    weights: str,
    pack_version: str,
    mapping: tuple[str, ...],
    **options: Any,
) -> None:
    """Make a pack of a trained network: nnU-Net's results folder, or an ONNX file.

    This needs the extra `import` and is done on a workstation, never on the box.
    """
    from appliance.commands import packs_import as importing

    known = ("name", "licence", "licence_class", "intended_use", "exclusions", "trained_on", "tested_on", "labels")
    said = importing.declaration(version=pack_version, **{key: options.pop(key) for key in known})
    if kind == "nnunet":
        importing.from_nnunet(source, out, said, mapping=mapping, weights=weights, **options)
    elif spec is None:
        raise click.UsageError("--from onnx needs --spec.")
    else:
        importing.from_onnx(source, spec, out, said, weights=weights)


@packs.command("update")
@click.argument("names", nargs=-1)
@click.option("--from", "source", help="Address or folder of the repository; by default packs.repository.source.")
@click.option("--root", type=click.Path(path_type=Path), help="Its root metadata; by default packs.repository.root.")
@_with_settings
def packs_update(names: tuple[str, ...], source: str | None, root: Path | None, settings: Settings) -> None:
    """Install what a repository has that is newer; NAMES adds packs that this box does not know yet."""
    from appliance.commands.pack_life import update_packs

    update_packs(settings, source=source, root=root, names=names)


@packs.command("publish")
@click.argument("repository", type=click.Path(path_type=Path))
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--keys", required=True, type=click.Path(path_type=Path), help="Folder of the repository's private keys.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="Days until boxes refuse it.")
def packs_publish(repository: Path, folders: tuple[Path, ...], keys: Path, days: int) -> None:
    """Put the signed packs in FOLDERS into REPOSITORY, or only sign its lists again."""
    from appliance.commands.pack_life import publish_packs

    publish_packs(repository, keys, folders, days=days)


@main.group()
def config() -> None:
    """The configuration: effective settings, and checking a file."""


@config.command("show")
@_json_option
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
