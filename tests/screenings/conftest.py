"""Fixtures shared by the tests of the screenings."""

from __future__ import annotations

import pytest

from tests.screenings.chest import Chest, make


@pytest.fixture(scope="session")
def plain():
    """An ordinary chest, a tenth of whose lung is emphysematous."""
    return make(Chest(low_fraction=0.10))
