"""``appliance packs import``: a network from elsewhere becomes a pack, on a workstation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.packs.importing.write import Declaration


def declaration(
    *,
    name: str,
    version: str,
    licence: str,
    licence_class: str,
    intended_use: str,
    exclusions: Sequence[str],
    trained_on: Sequence[str],
    tested_on: Sequence[str],
    labels: str,
) -> Declaration:
    """Gather what the caller says of a network."""
    from appliance.packs.importing.write import Declaration

    return Declaration(
        name,
        version,
        licence,
        licence_class,
        intended_use,
        tuple(exclusions),
        tuple(trained_on),
        tuple(tested_on),
        *([labels] if labels else []),
    )


def from_nnunet(
    source: Path,
    out: Path,
    said: Declaration,
    *,
    folds: Sequence[str],
    checkpoint: str,
    orientation: str,
    mapping: Sequence[str],
    drop_unknown: bool,
    resampling: str,
    step_size: float,
    mirror: bool,
    skip_air: bool,
    weights: str,
    precisions: Sequence[str],
) -> None:
    """Import nnU-Net's results folder and print what came of it."""
    from appliance.packs.importing.nnunet import import_nnunet

    pack = import_nnunet(
        source,
        out,
        said,
        folds=folds,
        checkpoint=checkpoint,
        orientation=orientation,
        structures=_mapping(mapping),
        drop_unknown=drop_unknown,
        resampling=resampling,
        step_size=step_size,
        mirror=mirror,
        skip_air=skip_air,
        half=weights == "f16",
        precisions=precisions,
    )
    _tell(pack.name, pack.version, pack.digest, pack.provides, out)


def from_monai(
    source: Path,
    out: Path,
    said: Declaration,
    *,
    config: str,
    checkpoint: str,
    orientation: str,
    mapping: Sequence[str],
    drop_unknown: bool,
    resampling: str,
    patch: Sequence[int],
    skip_air: bool,
    weights: str,
    precisions: Sequence[str],
) -> None:
    """Import a MONAI bundle and print what came of it."""
    from appliance.packs.importing.monai_bundle import import_monai

    pack = import_monai(
        source,
        out,
        said,
        config=config,
        checkpoint=checkpoint,
        orientation=orientation,
        structures=_mapping(mapping),
        drop_unknown=drop_unknown,
        resampling=resampling,
        patch=patch,
        skip_air=skip_air,
        half=weights == "f16",
        precisions=precisions,
    )
    _tell(pack.name, pack.version, pack.digest, pack.provides, out)


def from_onnx(source: Path, spec: Path, out: Path, said: Declaration, *, weights: str) -> None:
    """Import a plain ONNX file as a specification describes it, and print what came of it."""
    from appliance.packs.importing.onnx_file import import_onnx

    pack = import_onnx(source, spec, out, said, half=weights == "f16")
    _tell(pack.name, pack.version, pack.digest, pack.provides, out)


def _tell(name: str, version: str, digest: str, structures: Sequence[str], out: Path) -> None:
    print(f"{out}: {name} {version}, {digest}")  # noqa: T201
    print(f"provides {', '.join(structures)}")  # noqa: T201
    print("It is unsigned. Read its MODEL_CARD.md, compare it with where it came from, then sign it.")  # noqa: T201


def _mapping(entries: Sequence[str]) -> dict[str, str]:
    mapping = {}
    for entry in entries:
        name, equals, structure = entry.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"--map {entry}: write CLASS=STRUCTURE, or CLASS= to leave a class out")
        mapping[name] = structure
    return mapping
