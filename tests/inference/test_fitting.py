"""A scan takes the tiles with which it is done soonest, and one network is in memory at a time."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
from structlog.testing import capture_logs

from appliance.errors import InferenceError, NotEnoughMemoryError
from appliance.inference.fitting import FittingEngine, fit
from appliance.inference.tiling import count_tiles

SMALL, WIDE, LARGE = (16, 16, 16), (16, 24, 24), (32, 32, 32)
#: Seconds, as many as a tile has voxels in thousands.
SECONDS = {SMALL: 4.1, WIDE: 9.2, LARGE: 32.8}


class Compiled:
    name, precision, device = "stand-in", "f32", "CPU"

    def __init__(self, patch, device="CPU"):
        self.patch, self.device = patch, device

    def run(self, hu):
        assert hu.shape == self.patch
        return np.zeros((2, *hu.shape), np.float32)


@pytest.fixture
def made():
    """Weak references to the networks that were compiled, in order."""
    return []


@pytest.fixture
def engine(made):
    def reopen(patch):
        gc.collect()
        assert all(item() is None for item in made), "the network before is still in memory"
        compiled = Compiled(patch)
        made.append(weakref.ref(compiled))
        return compiled

    return FittingEngine(Compiled(SMALL), reopen, SECONDS, partial(count_tiles, overlap=0.5))


@pytest.mark.parametrize(
    ("scan", "patch"),
    [((16, 16, 16), SMALL), ((10, 10, 10), SMALL), ((16, 24, 20), WIDE), ((16, 17, 17), WIDE), ((32, 32, 32), LARGE)],
)
def test_a_scan_takes_the_tiles_that_cost_it_least(engine, scan, patch):
    engine.fit(scan)
    assert engine.patch == patch
    engine.run(np.zeros(patch, np.int16))
    costs = {shape: SECONDS[shape] * count_tiles(scan, shape, overlap=0.5) for shape in SECONDS}
    assert costs[patch] == min(costs.values())


def test_what_saves_little_is_not_worth_compiling(made):
    engine = FittingEngine(Compiled(SMALL), made.append, {SMALL: 0.2, WIDE: 0.5}, partial(count_tiles, overlap=0.5))
    engine.fit((16, 24, 24))
    assert (engine.patch, made) == (SMALL, [])


def test_the_next_scan_goes_back_where_that_is_quicker(engine, made):
    engine.fit((32, 32, 32))
    engine.fit((16, 16, 16))
    assert engine.patch == SMALL
    assert len(made) == 2


def test_a_shape_that_does_not_fit_into_memory_is_tried_once():
    tried = []

    def reopen(patch):
        tried.append(patch)
        if patch == LARGE:
            raise NotEnoughMemoryError("one tile needs 9 GiB")
        return Compiled(patch)

    engine = FittingEngine(Compiled(SMALL), reopen, SECONDS, partial(count_tiles, overlap=0.5))
    with capture_logs() as logs:
        engine.fit((32, 32, 32))
        engine.fit((32, 32, 32))
    assert tried == [LARGE, SMALL]
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["tile_not_used"]
    assert engine.patch == SMALL


def test_where_nothing_can_be_compiled_every_call_says_so_until_it_can():
    gone = True

    def reopen(patch):
        if gone:
            raise InferenceError("the driver has gone")
        return Compiled(patch)

    engine = FittingEngine(Compiled(SMALL), reopen, SECONDS, partial(count_tiles, overlap=0.5))
    with pytest.raises(InferenceError, match="the driver has gone"):
        engine.fit((32, 32, 32))
    with pytest.raises(InferenceError, match="the driver has gone"):
        engine.run(np.zeros(SMALL, np.int16))
    gone = False
    assert engine.run(np.zeros(engine.patch, np.int16)).shape == (2, *SMALL)


def test_a_device_that_was_not_measured_keeps_its_tile():
    compiled = Compiled(SMALL, "GPU")
    engine = FittingEngine(compiled, Compiled, SECONDS, partial(count_tiles, overlap=0.5))
    compiled.device = "CPU"  # it took over
    engine.fit((32, 32, 32))
    assert engine.patch == SMALL


def test_an_engine_of_one_shape_is_left_alone():
    engine = Compiled(SMALL)
    fit(engine, (32, 32, 32))
    assert engine.patch == SMALL
