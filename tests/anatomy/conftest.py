from pathlib import Path

import numpy as np
import pytest

from appliance.anatomy.mapper import map_with
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.inference.engines import open_engine
from appliance.packs.registry import available
from appliance.phantom import PhantomOptions, label_map
from appliance.scan import Volume

DATA = Path(__file__).parents[3] / "shared" / "data"
VALUES = {"body": 1, "lung_left": 2, "lung_right": 3, "airways": 4, "bone": 5}


@pytest.fixture(scope="session")
def pack():
    (found,) = available()
    return found


@pytest.fixture(scope="session")
def engine(pack):
    return open_engine(pack, threads=2)


@pytest.fixture(scope="session")
def phantom():
    """The phantom's chest and upper abdomen at 3 mm as a volume in canonical axes, and its labels."""
    hu, labels, affine, values = label_map(PhantomOptions(seed=5, coverage_low_mm=-60.0), 3.0)
    return Volume(hu, affine), labels, values


@pytest.fixture(scope="session")
def phantom_map(phantom, pack, engine):
    return map_with(phantom[0], pack, engine)


@pytest.fixture(scope="session")
def data():
    if not DATA.is_dir():
        pytest.skip("the shared scans are not on this machine")
    return DATA


@pytest.fixture
def drawn():
    """A made-up patient: an elliptic trunk with two lungs, a trachea and a spine, 3 mm, head up."""
    labels = np.zeros((120, 80, 120), np.uint8)
    z, y, x = np.indices(labels.shape)
    labels[((x - 60) / 56) ** 2 + ((y - 40) / 36) ** 2 < 1] = 1
    for value, middle in ((3, 35), (2, 85)):
        labels[((x - middle) / 18) ** 2 + ((y - 40) / 25) ** 2 + ((z - 70) / 38) ** 2 < 1] = value
    labels[75:115][((x - 60) ** 2 + (y - 32) ** 2 < 9)[75:115]] = 4
    labels[(x - 60) ** 2 + (y - 62) ** 2 < 64] = 5
    affine = np.array([[0, 0, 3.0, -180], [0, 3.0, 0, -120], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    return OrganMap(labels, affine, dict(VALUES), PackUse("trunk", "0.1.0", "sha256:0", "int8", "CPU", "openvino"))
