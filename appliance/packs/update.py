"""Fetching packs from a repository: one road for an HTTP server and a USB folder.

The client is python-tuf's; it keeps in the folder of the installed packs what it has seen, and refuses anything older.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from appliance.errors import PackError
from appliance.packs.choice import locked, read_choice
from appliance.packs.install import install
from appliance.packs.registry import load_shipped, shipped_folders, version_key
from appliance.packs.repository import INDEX

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

    from tuf.ngclient import Updater

    from appliance.packs.pack import Pack
    from appliance.packs.rules import Rules
    from appliance.packs.runtime import Computing

_FOLDER = ".repository"
_LOCK = ".update.lock"
_TIMEOUT_S = 30.0
_BLOCK = 1 << 20


def update(
    source: str, root: Path, rules: Rules, computing: Computing | None = None, *, names: Collection[str] = ()
) -> list[Pack]:
    """Install what a repository has that is newer than anything this box has had.

    Parameters
    ----------
    source
        An ``http://`` or ``https://`` address, or a folder.
    root
        The repository's first root metadata, got by a way that is trusted.
    rules, computing
        See :func:`appliance.packs.install.install`, which every pack passes through.
    names
        Packs wanted; by default those that this box knows already.

    Returns
    -------
    list[Pack]
        Installed now; not active yet.

    Raises
    ------
    PackError
        The repository cannot be reached or must not be trusted, or a pack of it may not be used.
    """
    known = _known(rules)
    wanted = set(names) or set(known)
    installed = []
    with _opened(source, root, rules) as (client, newest):
        missing = sorted(set(names) - set(newest))
        if missing:
            raise PackError(f"{source}: the repository has no pack {', '.join(missing)}.")
        for name in sorted(wanted & set(newest)):
            entry = newest[name]
            if name not in known or version_key(entry["version"]) > version_key(known[name]):
                installed.append(install(_download(client, entry["file"]), rules, computing))
    return installed


@dataclass(frozen=True, slots=True)
class Offer:
    """What a repository has of a pack that this box knows.

    Attributes
    ----------
    name
        The pack.
    known, offered
        Highest version that this box has had, and that the repository has.
    """

    name: str
    known: str
    offered: str

    @property
    def newer(self) -> bool:
        """Whether an update would install it."""
        return version_key(self.offered) > version_key(self.known)


def look(source: str, root: Path, rules: Rules) -> list[Offer]:
    """Ask a repository what it has of the packs that this box knows; nothing is installed.

    Parameters
    ----------
    source, root, rules
        See :func:`update`.

    Raises
    ------
    PackError
        The repository cannot be reached or must not be trusted.
    """
    known = _known(rules)
    with _opened(source, root, rules) as (_, newest):
        return [Offer(name, known[name], newest[name]["version"]) for name in sorted(set(known) & set(newest))]


@contextmanager
def _opened(source: str, root: Path, rules: Rules) -> Generator[tuple[Updater, dict[str, dict[str, Any]]], None, None]:
    """Give a client of the repository and its newest packs; one at a time, and what it downloads is deleted after."""
    from tuf.api.exceptions import DownloadError, RepositoryError

    if rules.installed is None:
        raise PackError("There is no folder to install packs into; set box.state_directory.")
    kept = rules.installed / _FOLDER
    with locked(rules.installed, _LOCK):
        downloads = kept / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        try:
            downloads.mkdir(parents=True)
            client = _client(source, root, kept / "metadata", downloads)
            client.refresh()
            yield client, _newest(json.loads(_download(client, INDEX).read_bytes()))
        except (RepositoryError, DownloadError) as error:
            raise PackError(f"{source}: {_sentence(error)}") from error
        except OSError as error:
            raise PackError(f"{kept}: the update cannot be kept ({error.strerror}).") from error
        except (ValueError, KeyError, TypeError) as error:
            raise PackError(f"{source}: the repository's list of packs cannot be read.") from error
        finally:
            shutil.rmtree(downloads, ignore_errors=True)


def _known(rules: Rules) -> dict[str, str]:
    """Return the highest version this box has had of each pack."""
    known = {pack.name: pack.version for pack in (load_shipped(folder, rules) for folder in shipped_folders())}
    for name, version in read_choice(rules.installed).highest.items():
        if name not in known or version_key(version) > version_key(known[name]):
            known[name] = version
    return known


def _newest(index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    newest: dict[str, dict[str, Any]] = {}
    for entry in index["packs"]:
        best = newest.get(entry["name"])
        if best is None or version_key(entry["version"]) > version_key(best["version"]):
            newest[entry["name"]] = entry
    return newest


def _client(source: str, root: Path, metadata: Path, downloads: Path) -> Updater:
    from tuf.ngclient import Updater

    try:
        bootstrap = root.read_bytes()
    except OSError as error:
        raise PackError(f"{root}: the repository's root metadata cannot be read ({error.strerror}).") from error
    metadata.mkdir(parents=True, exist_ok=True)
    base = source.rstrip("/") if urlsplit(source).scheme in {"http", "https"} else Path(source).absolute().as_uri()
    return Updater(
        metadata_dir=str(metadata),
        metadata_base_url=f"{base}/metadata/",
        target_dir=str(downloads),
        target_base_url=f"{base}/targets/",
        fetcher=_fetcher(),
        bootstrap=bootstrap,
    )


def _download(client: Updater, name: str) -> Path:
    target = client.get_targetinfo(name)
    if target is None:
        raise PackError(f"The repository's signed list does not hold {name}.")
    return Path(client.download_target(target))


def _fetcher() -> Any:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        """Reads ``http``, ``https`` and ``file`` addresses alike, block by block."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                answer = urlopen(url, timeout=_TIMEOUT_S)  # noqa: S310  # the three schemes are all that _client makes
            except HTTPError as error:
                raise DownloadHTTPError(str(error.reason), error.code) from error
            except OSError as error:
                if isinstance(getattr(error, "reason", None), FileNotFoundError):
                    raise DownloadHTTPError("no such file", 404) from error
                raise
            return _blocks(answer)

    return Fetcher()


def _blocks(answer: Any) -> Iterator[bytes]:
    with answer:
        while block := answer.read(_BLOCK):
            yield block


def _sentence(error: Exception) -> str:
    from tuf.api import exceptions

    if isinstance(error, exceptions.DownloadHTTPError):
        return f"a file is missing there (status {error.status_code}); nothing was installed."
    sentences = (
        (
            exceptions.ExpiredMetadataError,
            "its lists have expired: either nobody signs them any more, or somebody shows this box old ones",
        ),
        (
            exceptions.BadVersionNumberError,
            "it shows lists that are older than those it showed before, or that do not belong together",
        ),
        (exceptions.UnsignedMetadataError, "its lists are not signed by the keys that its root metadata names"),
        (exceptions.LengthOrHashMismatchError, "it gives a file that is not the one in its signed list"),
        (exceptions.DownloadLengthMismatchError, "it gives a file that is longer than its signed list says"),
        (exceptions.RepositoryError, "its metadata is not valid"),
    )
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return f"{sentence}; nothing was installed."
    return "it cannot be reached; check address, cable and firewall, or that the stick is mounted."
