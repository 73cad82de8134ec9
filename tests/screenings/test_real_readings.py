"""Real scans with the shipped pack's own organ map: each number is as a reader saw it, or there is a reason."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from appliance.anatomy.mapper import map_with
from appliance.inference.engines import open_engine
from appliance.packs.pack import load
from appliance.screenings.contract import Status
from appliance.screenings.registry import screenings
from tests.screenings.panel import numbers, panel
from tests.screenings.real_scans import names, real_scan, rows

pytestmark = pytest.mark.slow

PACK = Path(__file__).parents[2] / "models" / "trunk"


@cache
def pack_and_engine():
    pack = load(PACK)
    if not {"aorta", "heart", "liver", "vertebral_bodies"} <= set(pack.structures):
        pytest.skip("the shipped pack maps too few structures")
    return pack, open_engine(pack, threads=2)


@cache
def outcomes_of(name: str):
    scan = real_scan(name)
    pack, engine = pack_and_engine()
    return panel(scan, map_with(scan.volume, pack, engine))[0]


#: Numbers of the shipped pack that are known to be wrong; the manual tells of them. One that is mended must be
#: taken out here.
KNOWN_DIFFERENCES = {
    "acrin_flt_013_plain": {"liver_mean_hu"},  # low dose; the reader's place is one spot of the little that is seen
}


@pytest.mark.parametrize("name", names())
def test_no_number_is_silently_wrong(name):
    differing = [row for row in rows(name, outcomes_of(name)) if not row.agrees]
    assert {row.name for row in differing} == KNOWN_DIFFERENCES.get(name, set()), "\n".join(map(str, differing))


@pytest.mark.parametrize("name", names())
def test_every_screening_ends_in_a_number_or_a_coded_reason(name):
    for screening, outcome in outcomes_of(name).items():
        assert outcome.status is not Status.FAILED, screening
        assert outcome.measurements or outcome.reason, screening


@pytest.mark.parametrize("name", [name for name in names() if name.endswith("_contrast")])
def test_contrast_that_no_header_mentions_gives_no_number_of_a_plain_scan(name):
    plain = {key: item for key, item in screenings().items() if item.needs(item.settings_model()).contrast_free}
    assert numbers({key: outcome for key, outcome in outcomes_of(name).items() if key in plain}) == {}
