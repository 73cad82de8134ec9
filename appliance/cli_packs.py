"""The commands ``appliance packs …``: thin functions, as in :mod:`appliance.cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli_options import json_option, with_settings

if TYPE_CHECKING:
    from appliance.config import Settings

EXIT_FAILED = 4


@click.group()
def packs() -> None:
    """Model packs: the networks on this box."""
    from appliance.logs import configure

    configure("warning", "text")


@packs.command("list")
@json_option
@with_settings
def packs_list(as_json: bool, settings: Settings) -> None:
    """List the installed packs."""
    from appliance.commands.packs import list_packs

    list_packs(settings, as_json=as_json)


@packs.command("show")
@click.argument("name")
@json_option
@with_settings
def packs_show(name: str, as_json: bool, settings: Settings) -> None:
    """Show what a pack provides, its evidence and its limits.

    NAME is a pack in use, NAME/VERSION an installed one, or a folder.
    """
    from appliance.commands.packs import show_pack

    show_pack(settings, name, as_json=as_json)


@packs.command("verify")
@with_settings
def packs_verify(settings: Settings) -> None:
    """Check every pack's digests and run its test vectors on this machine."""
    from appliance.commands.packs import verify_packs

    sys.exit(0 if verify_packs(settings) else EXIT_FAILED)


@packs.command("bench")
@click.argument("name", required=False)
@click.option("--tiles", type=click.IntRange(1, 100), default=3, show_default=True, help="Tiles timed each way.")
@json_option
@with_settings
def packs_bench(name: str | None, tiles: int, as_json: bool, settings: Settings) -> None:
    """Measure each way to run a pack on this box, and take the quickest that computes what it should.

    NAME is a pack in use, NAME/VERSION an installed one, or a folder; without it, all in use are measured.
    """
    from appliance.commands.packs_bench import bench_packs

    bench_packs(settings, name, tiles=tiles, as_json=as_json)


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
@with_settings
def packs_install(source: Path, then_activate: bool, settings: Settings) -> None:
    """Install the pack in SOURCE (a folder or a zip file) once signature, files and self-test are good."""
    from appliance.commands.pack_life import install_pack

    install_pack(source, settings, then_activate=then_activate)


@packs.command("activate")
@click.argument("name")
@click.argument("version")
@with_settings
def packs_activate(name: str, version: str, settings: Settings) -> None:
    """Use an installed VERSION from the next scan on; "shipped" is what came with the appliance."""
    from appliance.commands.pack_life import activate_pack

    activate_pack(name, version, settings)


@packs.command("rollback")
@click.argument("name")
@with_settings
def packs_rollback(name: str, settings: Settings) -> None:
    """Return to the version that was active before."""
    from appliance.commands.pack_life import rollback_pack

    rollback_pack(name, settings)


@packs.command("shadow")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--off", is_flag=True, help="Stop it.")
@json_option
@with_settings
def packs_shadow(name: str, version: str | None, off: bool, as_json: bool, settings: Settings) -> None:
    """Run an installed VERSION beside the active one, or print how far they agree."""
    from appliance.commands.pack_life import shadow_pack

    shadow_pack(name, version, settings, off=off, as_json=as_json)


@packs.command("remove")
@click.argument("name")
@click.argument("version")
@with_settings
def packs_remove(name: str, version: str, settings: Settings) -> None:
    """Delete an installed VERSION that is not in use."""
    from appliance.commands.pack_life import remove_pack

    remove_pack(name, version, settings)


@packs.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "kind", required=True, type=click.Choice(["nnunet", "monai", "onnx"]), help="What SOURCE is.")
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
@click.option("--checkpoint", help="File of the weights: checkpoint_final.pth in each fold; model.pt in models/.")
@click.option("--config", default="inference", show_default=True, help="monai: which of the bundle's configurations.")
@click.option(
    "--patch", nargs=3, type=click.IntRange(8, 1024), help="monai: tiles of another shape, in the network's axes."
)
@click.option("--orientation", default="auto", show_default=True, help="Axes of the training images, as RAS.")
@click.option(
    "--resampling", type=click.Choice(["nnunet", "monai", "area"]), help="Where it came from its own, or our area."
)
@click.option(
    "--step-size", default=0.5, type=click.FloatRange(0.25, 1.0), show_default=True, help="nnunet: of a tile."
)
@click.option("--mirror", is_flag=True, help="nnunet: average over mirrorings, up to eight times the work.")
@click.option("--skip-air", is_flag=True, help="No tiles for the room around the patient.")
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
    """Make a pack of a trained network: nnU-Net's results folder, a MONAI bundle, or an ONNX file.

    This needs the extra `import` and is done on a workstation, never on the box.
    """
    if options["resampling"] not in {None, "area", kind}:
        raise click.UsageError(f"--resampling {options['resampling']} does not belong to --from {kind}.")
    from appliance.commands import packs_import as importing

    known = ("name", "licence", "licence_class", "intended_use", "exclusions", "trained_on", "tested_on", "labels")
    said = importing.declaration(version=pack_version, **{key: options.pop(key) for key in known})
    options["resampling"] = options["resampling"] or kind
    config, patch = options.pop("config"), options.pop("patch") or ()
    if kind == "nnunet":
        options["checkpoint"] = options["checkpoint"] or "checkpoint_final.pth"
        importing.from_nnunet(source, out, said, mapping=mapping, weights=weights, **options)
    elif kind == "monai":
        for foreign in ("folds", "step_size", "mirror"):
            options.pop(foreign)
        options["checkpoint"] = options["checkpoint"] or "model.pt"
        importing.from_monai(source, out, said, config=config, patch=patch, mapping=mapping, weights=weights, **options)
    elif spec is None:
        raise click.UsageError("--from onnx needs --spec.")
    else:
        importing.from_onnx(source, spec, out, said, weights=weights)


@packs.command("quantize")
@click.argument("name")
@click.option(
    "--calibrate",
    "calibrate",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Scans: NIfTI in HU, DICOM, zip, or folders. Without --gate every second study of them judges.",
)
@click.option("--gate", multiple=True, type=click.Path(path_type=Path), help="Scans that judge and do not calibrate.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new pack's folder; must not exist.")
@click.option("--version", "pack_version", help="Of the new pack; by default the last number is raised.")
@click.option(
    "--maximum-dice-drop",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Most that a structure may lose against single precision.",
)
@click.option(
    "--maximum-volume-difference",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="As a share of the volume in single precision.",
)
@click.option(
    "--minimum-gain",
    default=0.1,
    show_default=True,
    type=click.FloatRange(-10, 0.99),
    help="Share of a tile's time that INT8 must save; below 0 keeps an INT8 that is slower here.",
)
@click.option(
    "--patch",
    "patches",
    multiple=True,
    type=(click.IntRange(1), click.IntRange(1), click.IntRange(1)),
    metavar="A B C",
    help="Another shape of a tile that shall pass the gate too, voxels along the network's axes; may be repeated.",
)
@click.option("--threads", default=0, type=click.IntRange(0), help="CPU threads; 0 takes all.")
@with_settings
def packs_quantize(
    name: str,
    calibrate: tuple[Path, ...],
    gate: tuple[Path, ...],
    out: Path,
    pack_version: str | None,
    settings: Settings,
    patches: tuple[tuple[int, int, int], ...],
    threads: int,
    **margins: float,
) -> None:
    """Make INT8 of a pack's network and keep what loses nothing against single precision.

    NAME is a pack in use, NAME/VERSION an installed one, or a folder. The new pack holds the report and is unsigned.
    This needs the extra `import` and is done on a workstation, never on the box.
    """
    from appliance.commands.packs_quantize import quantize

    quantize(
        name,
        calibrate,
        gate,
        out,
        settings=settings,
        version=pack_version,
        threads=threads,
        margins=margins,
        patches=patches,
    )


@packs.command("update")
@click.argument("names", nargs=-1)
@click.option("--from", "source", help="Address or folder of the repository; by default packs.repository.source.")
@click.option("--root", type=click.Path(path_type=Path), help="Its root metadata; by default packs.repository.root.")
@with_settings
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
