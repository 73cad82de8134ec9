"""What is calibrated is what is run."""

from functools import partial

import numpy as np
import pytest

from appliance.anatomy.mapper import network_labels
from appliance.errors import PackError
from appliance.inference.engines import open_engine
from appliance.packs.quantising.calibration import collect, tiles_of
from appliance.packs.quantising.scans import Source, read_nifti
from tests.quantising.conftest import PATCH, scan, sound, write_scan


@pytest.fixture
def volume(tmp_path):
    return read_nifti(write_scan(tmp_path / "a.nii.gz", scan(1)))


def source(tmp_path, number: int) -> Source:
    path = write_scan(tmp_path / f"{number}.nii.gz", scan(number))
    return Source(path.name, str(path), partial(read_nifti, path))


def test_the_tiles_are_those_that_the_engine_is_given(pack_of, volume):
    pack = pack_of(sound)
    engine = open_engine(pack, precision="f32", threads=1)
    given = []

    class Listening:
        name, precision, device, patch = engine.name, engine.precision, engine.device, engine.patch

        def run(self, hu):
            given.append(hu.copy())
            return engine.run(hu)

    network_labels(volume, pack, Listening())
    cut = tiles_of(volume, pack)
    assert len(cut) == len(given) > 1
    assert all(np.array_equal(one, other) for one, other in zip(cut, given, strict=True))
    assert cut[0].shape == PATCH


def test_tiles_are_shared_out_among_scans(pack_of, tmp_path):
    said = []
    tiles, scans = collect(pack_of(sound), [source(tmp_path, 1), source(tmp_path, 2)], said.append, most=6)
    assert (len(tiles), scans) == (6, 2)
    assert said == ["1.nii.gz: 3 of 8 tiles calibrate", "2.nii.gz: 3 of 8 tiles calibrate"]


def test_a_scan_that_cannot_be_read_is_told_and_left_out(pack_of, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    said = []
    sources = [Source("broken.nii.gz", "b", partial(read_nifti, broken)), source(tmp_path, 1)]
    _, scans = collect(pack_of(sound), sources, said.append)
    assert scans == 1
    assert said[0].startswith("broken.nii.gz is left out: ")


def test_no_usable_scan_is_refused(pack_of, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    with pytest.raises(PackError, match="None of the scans that should calibrate"):
        collect(pack_of(sound), [Source("broken", "b", partial(read_nifti, broken))], lambda _: None)
