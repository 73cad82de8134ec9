"""Makes the daily message of drift out of stored results, so that nobody can be told from it.

What is too little to hide one patient is not published: days with few studies wait for the next ones, small groups are
taken together, and what is still too small is left out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from appliance.durable import write_durably
from appliance.errors import ConfigurationError
from appliance.health.drift_bins import INPUT_EDGES, MEASUREMENT_EDGES, InputName, count
from appliance.health.drift_model import Drift, Group, Histogram, Manufacturer, ScreeningCounts, SeriesCount
from appliance.reasons import ReasonCode
from appliance.scan import ContrastTag, KernelFamily
from appliance.screenings.contract import Status
from appliance.screenings.registry import screenings
from appliance.store.drift import StoredDrift

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.config import Peer
    from appliance.store.database import Store
    from appliance.store.drift import DriftScan

LEAST_STUDIES = 10
"""A number of studies among which one is hidden: a county hospital reaches it on any working day."""

LONGEST_DAYS = 28
MOST_GROUPS = 16
OTHER = "other"
_KEY_BYTES = 32

# Parts of Manufacturer (0008,0070) in lower case; the first that fits counts.
_MANUFACTURERS = (
    ("siemens", Manufacturer.SIEMENS),
    ("ge medical", Manufacturer.GE),
    ("ge healthcare", Manufacturer.GE),
    ("philips", Manufacturer.PHILIPS),
    ("toshiba", Manufacturer.CANON),
    ("canon", Manufacturer.CANON),
    ("united imaging", Manufacturer.UNITED_IMAGING),
    ("uih", Manufacturer.UNITED_IMAGING),
    ("neusoft", Manufacturer.NEUSOFT),
    ("hitachi", Manufacturer.FUJIFILM),
    ("fuji", Manufacturer.FUJIFILM),
    ("minfound", Manufacturer.MINFOUND),
    ("anke", Manufacturer.ANKE),
    ("samsung", Manufacturer.SAMSUNG),
    ("neurologica", Manufacturer.SAMSUNG),
)


_Word = TypeVar("_Word", KernelFamily, ContrastTag)


class _Key(NamedTuple):
    scanner: str
    manufacturer: Manufacturer
    model: str | None


class _Value(NamedTuple):
    study: str
    number: float


def make_due(store: Store, peers: Sequence[Peer], key_file: Path, *, now: float | None = None) -> Drift | None:
    """Make the message of the local days that no message covers yet, and store it.

    Parameters
    ----------
    store
        Opened for writing.
    peers
        Who may send, with the names that the site has given them.
    key_file
        Where this box keeps the key of its pseudonyms; made when missing.
    now
        Unix time.

    Returns
    -------
    Drift or None
        ``None`` while no day has passed, or too few studies have come.

    Raises
    ------
    StoreError
        The database cannot be used.
    ConfigurationError
        The key cannot be read or written.
    """
    moment = time.time() if now is None else now
    last = _day(moment) - timedelta(days=1)
    latest = store.drift.latest()
    began_at = store.drift.first_at()
    if latest is not None:
        first = date.fromisoformat(latest.last_day) + timedelta(days=1)
    elif began_at is not None:
        first = _day(began_at)
    else:
        return None
    first = max(first, last - timedelta(days=LONGEST_DAYS - 1))
    if first > last:
        return None  # also when the clock was set back: no day is told twice
    since, until = _midnight(first), _midnight(last + timedelta(days=1))
    if store.drift.studies(since, until) < LEAST_STUDIES:
        return None
    groups, left_out = _groups(store.drift.screened(since, until), peers, _key(key_file))
    drift = Drift(
        made_at=datetime.fromtimestamp(moment, UTC),
        first_day=first.isoformat(),
        last_day=last.isoformat(),
        least_studies=LEAST_STUDIES,
        left_out=left_out,
        series=tuple(
            SeriesCount(state=state, reason=reason, count=number)
            for state, reason, number in store.drift.ended(since, until)
        ),
        groups=groups,
    )
    store.drift.save(StoredDrift(drift.first_day, drift.last_day, drift.model_dump_json()), at=moment)
    return drift


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).astimezone().date()


def _midnight(day: date) -> float:
    """Return when a local day begins, Unix time; a day with a change of the clock has 23 or 25 hours."""
    return time.mktime((day.year, day.month, day.day, 0, 0, 0, 0, 0, -1))


def manufacturer_of(text: str) -> Manufacturer:
    """Return the manufacturer that a header's text means."""
    plain = " ".join(text.lower().split())
    if not plain:
        return Manufacturer.UNKNOWN
    if plain == "ge":
        return Manufacturer.GE
    return next((known for part, known in _MANUFACTURERS if part in plain), Manufacturer.OTHER)


def pseudonym(key: bytes, manufacturer: str, model: str) -> str | None:
    """Return what stands for a model's name: the same on this box for ever, and nothing without its key."""
    if not model.strip():
        return None
    text = f"{manufacturer.strip()}\0{model.strip()}".encode()
    return "m-" + hmac.new(key, text, hashlib.sha256).hexdigest()[:8]


def scanner_name(calling_ae_title: str | None, peers: Sequence[Peer]) -> str:
    """Return the configured name of who sent a scan, never its AE title."""
    for number, peer in enumerate(peers, start=1):
        if calling_ae_title is not None and peer.ae_title.strip() == calling_ae_title.strip():
            return peer.name or f"peer-{number}"
    return OTHER


def _key(path: Path) -> bytes:
    try:
        if path.exists():
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = secrets.token_bytes(_KEY_BYTES)
        write_durably(path, key)
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: the key of the pseudonyms cannot be kept: {error.strerror}.") from error
    return key


def _groups(scans: Sequence[DriftScan], peers: Sequence[Peer], key: bytes) -> tuple[tuple[Group, ...], bool]:
    by_key: dict[_Key, list[DriftScan]] = {}
    for scan in scans:
        name = scanner_name(scan.calling_ae_title, peers)
        model = pseudonym(key, scan.manufacturer, scan.model)
        by_key.setdefault(_Key(name, manufacturer_of(scan.manufacturer), model), []).append(scan)
    large = sorted(by_key, key=lambda item: -_studies(by_key[item]))[: MOST_GROUPS - 1]
    large = [item for item in large if _studies(by_key[item]) >= LEAST_STUDIES]
    rest = [scan for item, members in by_key.items() if item not in large for scan in members]
    groups = [_group(item, by_key[item]) for item in sorted(large, key=lambda item: (*item[:2], item.model or ""))]
    if _studies(rest) >= LEAST_STUDIES:
        groups.append(_group(_Key(OTHER, Manufacturer.UNKNOWN, None), rest))
        rest = []
    return tuple(groups), bool(rest)


def _studies(scans: Sequence[DriftScan]) -> int:
    return len({scan.study for scan in scans})


def _group(key: _Key, scans: Sequence[DriftScan]) -> Group:
    inputs: dict[InputName, list[_Value]] = {name: [] for name in InputName}
    measured: dict[str, list[_Value]] = {}
    for scan in scans:
        for input_name, found in inputs.items():
            value = scan.inputs.get(input_name.value)
            if value is not None:
                found.append(_Value(scan.study, value))
        for name, value in _one_value_each(scan).items():
            measured.setdefault(name, []).append(_Value(scan.study, value))
    return Group(
        scanner=key.scanner,
        manufacturer=key.manufacturer,
        model=key.model,
        studies=_studies(scans),
        scans=len(scans),
        kernel_family=_tally(KernelFamily, [scan.kernel_family for scan in scans], KernelFamily.UNKNOWN),
        contrast=_tally(ContrastTag, [scan.contrast for scan in scans], ContrastTag.UNKNOWN),
        inputs={name: _histogram(found, INPUT_EDGES[name]) for name, found in inputs.items() if _enough(found)},
        screenings=_screenings(scans),
        measurements={
            name: _histogram(measured[name], MEASUREMENT_EDGES[name])
            for name in sorted(measured)
            if _enough(measured[name])
        },
    )


def _tally(kind: type[_Word], words: Sequence[str], otherwise: _Word) -> dict[_Word, int]:
    known = {item.value: item for item in kind}
    return dict(Counter(known.get(word, otherwise) for word in words))


def _enough(values: Sequence[_Value]) -> bool:
    return len({value.study for value in values}) >= LEAST_STUDIES


def _histogram(values: Sequence[_Value], edges: tuple[float, ...]) -> Histogram:
    return Histogram(edges=edges, counts=count((value.number for value in values), edges))


def _one_value_each(scan: DriftScan) -> dict[str, float]:
    """Return one value of each measurement: that of the whole, or where only parts have one, their mean."""
    whole: dict[str, float] = {}
    parts: dict[str, list[float]] = {}
    for name, value, site in scan.measurements:
        if name not in MEASUREMENT_EDGES:
            continue
        if site is None:
            whole[name] = value
        else:
            parts.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in parts.items()} | whole


def _screenings(scans: Sequence[DriftScan]) -> dict[str, ScreeningCounts]:
    status: dict[str, Counter[Status]] = {}
    reasons: dict[str, Counter[ReasonCode]] = {}
    for scan in scans:
        for name, ended, reason in scan.screenings:
            if name not in screenings():
                continue  # of a release that had others
            status.setdefault(name, Counter())[Status(ended)] += 1
            if reason is not None:
                reasons.setdefault(name, Counter())[ReasonCode(reason)] += 1
    return {
        name: ScreeningCounts(status=dict(status[name]), reasons=dict(reasons.get(name, {}))) for name in sorted(status)
    }
