import numpy as np
import pytest

from appliance.packs.registry import available
from appliance.phantom import PhantomOptions, label_map


@pytest.fixture(scope="session")
def pack():
    (found,) = available()
    return found


@pytest.fixture(scope="session")
def phantom():
    """HU and labels of the phantom's chest at 3 mm, in canonical axes."""
    hu, labels, _, values = label_map(PhantomOptions(seed=5, coverage_low_mm=-30.0), 3.0)
    return hu, labels, values


@pytest.fixture(scope="session")
def tile(phantom, pack):
    """One patch out of the phantom's middle."""
    hu, _, _ = phantom
    patch = pack.manifest.input.patch
    out = np.full(patch, -1024, np.int16)
    sizes = [min(a, b) for a, b in zip(hu.shape, patch, strict=True)]
    source = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(hu.shape, sizes, strict=True))
    target = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(patch, sizes, strict=True))
    out[target] = hu[source]
    return out
