"""``appliance packs``: keys, signatures, and the life of an installed pack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError, StoreError
from appliance.packs.rules import Rules
from appliance.packs.runtime import Computing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.config import Settings


def _computing(settings: Settings) -> Computing:
    return Computing.from_settings(settings)


def keygen(folder: Path, name: str, *, role: str, holder: str, days: int) -> None:
    """Make a key pair and say what to do with each half."""
    from appliance.packs.key_ring import Role, make_key

    path, public = make_key(folder, name, role=Role(role), holder=holder, days=days)
    print(f"key {public.key}, {public.role}, until {public.not_after:%F}")  # noqa: T201
    print(f"private: {path}  (keep it off the box; whoever has it can sign in your name)")  # noqa: T201
    print(f"public:  {folder / name}.public.json  (name it in packs.keys of every box that shall trust it)")  # noqa: T201


def sign_pack(folder: Path, key: Path) -> None:
    """Verify a pack's files and sign it."""
    from appliance.packs.pack import load
    from appliance.packs.signature import sign

    pack = load(folder)
    signature = sign(pack, key)
    print(f"{pack.name} {pack.version}: signed with the {signature.role} key {signature.key}, {pack.digest}")  # noqa: T201


def install_pack(source: Path, settings: Settings, *, then_activate: bool) -> None:
    """Install, measure how this box runs it best, and activate when asked to."""
    from appliance.commands.packs_bench import bench_installed
    from appliance.packs.install import install

    pack = install(source, Rules.from_settings(settings), _computing(settings))
    print(f"{pack.name} {pack.version}: installed ({pack.trust}), whole, and computes here what it should")  # noqa: T201
    bench_installed(pack, settings)
    if then_activate:
        activate_pack(pack.name, pack.version, settings)
    else:
        print(f"not active yet: `appliance packs activate {pack.name} {pack.version}`")  # noqa: T201


def activate_pack(name: str, version: str, settings: Settings) -> None:
    """Activate a version."""
    from appliance.packs.install import activate

    activate(name, version, Rules.from_settings(settings), _computing(settings))
    _record(settings)
    print(f"{name} {version}: active from the next scan on")  # noqa: T201


def rollback_pack(name: str, settings: Settings) -> None:
    """Return to the version before."""
    from appliance.packs.install import rollback

    version = rollback(name, Rules.from_settings(settings), _computing(settings))
    _record(settings)
    print(f"{name} {version}: active again from the next scan on")  # noqa: T201


def remove_pack(name: str, version: str, settings: Settings) -> None:
    """Delete a version that is not in use."""
    from appliance.packs.install import remove

    remove(name, version, Rules.from_settings(settings))
    print(f"{name} {version}: removed")  # noqa: T201


def shadow_pack(name: str, version: str | None, settings: Settings, *, off: bool, as_json: bool) -> None:
    """Switch a shadow on or off, or print what it has found."""
    from appliance.packs.choice import read_choice
    from appliance.packs.install import set_shadow

    rules = Rules.from_settings(settings)
    if off:
        set_shadow(name, None, rules)
        print(f"{name}: no shadow runs any more; what it found is kept")  # noqa: T201
        return
    running = read_choice(rules.installed).shadow.get(name)
    if version is not None and version != running:
        set_shadow(name, version, rules, _computing(settings))
        print(f"{name} {version}: runs beside the active pack from the next scan on and changes no result")  # noqa: T201
        return
    _print_agreement(settings, name, version or running, as_json=as_json)


def _print_agreement(settings: Settings, name: str, version: str | None, *, as_json: bool) -> None:
    from appliance.packs.shadow import summary

    if version is None:
        print(f"{name}: no shadow runs; start one with `appliance packs shadow {name} VERSION`")  # noqa: T201
        return
    found = summary(settings.box.packs, name, version)
    if as_json:
        print(json.dumps({"name": name, "version": version, **found}, indent=1))  # noqa: T201
        return
    print(f"{name} {version} as a shadow: {found['scans']} scans")  # noqa: T201
    for structure, values in found["structures"].items():
        print(  # noqa: T201
            f"  {structure}: Dice {values['dice_mean']:.3f} (least {values['dice_least']:.3f}), "
            f"volume {values['volume_difference_ml']:+.1f} ml, {values['scans']} scans"
        )


def update_packs(settings: Settings, *, source: str | None, root: Path | None, names: Sequence[str]) -> None:
    """Install what is newer in a repository, and measure how this box runs it best.

    Raises
    ------
    ConfigurationError
        Nobody says where the repository or its root metadata is.
    """
    from appliance.commands.packs_bench import bench_installed
    from appliance.packs.update import update

    configured = settings.packs.repository
    source = source or (configured.source if configured else None)
    root = root or (configured.root if configured else None)
    if source is None or root is None:
        raise ConfigurationError("no repository of packs: give --from and --root, or set packs.repository")
    installed = update(source, root, Rules.from_settings(settings), _computing(settings), names=names)
    for pack in installed:
        print(f"{pack.name} {pack.version}: installed ({pack.trust}); not active yet")  # noqa: T201
        bench_installed(pack, settings)
    if not installed:
        print("nothing newer")  # noqa: T201


def publish_packs(repository: Path, keys: Path, folders: Sequence[Path], *, days: int) -> None:
    """Publish and say what boxes need."""
    from appliance.packs.repository import publish

    root = publish(repository, keys, folders, days=days)
    print(f"{repository}: packs added: {len(folders)}; good for {days} days, then sign it again")  # noqa: T201
    print(f"root metadata for packs.repository.root of every box: {root}")  # noqa: T201


def _record(settings: Settings) -> None:
    """Tell the fleet, where there is a database to keep the event in."""
    import structlog

    from appliance.store.database import open_database
    from appliance.store.events import EventKind

    if not settings.box.database.exists():
        return
    try:
        with open_database(settings.box.database, check=False) as store:
            store.events.record(EventKind.PACK_ACTIVATED)
    except StoreError as error:
        structlog.get_logger().warning("event_not_recorded", why=str(error))
