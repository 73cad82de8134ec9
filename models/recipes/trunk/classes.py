"""What the network tells apart, and how a label says that several answers are possible.

Few scans have a label of every structure. A training label is therefore a set: each voxel holds one bit for every class
that it may be, and the loss asks only that the network's answer be one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: Structures in the order of the network's answers 1, 2, 3 …; answer 0 is what is not patient.
NAMES = (
    "body",
    "lung_left",
    "lung_right",
    "airways",
    "bone",
    "vertebral_bodies",
    "heart",
    "aorta",
    "pulmonary_trunk",
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
)
CLASSES = len(NAMES) + 1
VALUE = {"background": 0, **{name: value for value, name in enumerate(NAMES, start=1)}}
#: Every class possible: the voxel teaches nothing.
ANYTHING = (1 << CLASSES) - 1
#: What :func:`sure` gives where several classes are possible.
UNSURE = 255
#: Organs of soft tissue, which the rules call "body".
SOFT = NAMES[6:]


def bits(names: Iterable[str]) -> int:
    """Return the set of the named classes as bits."""
    return sum(1 << VALUE[name] for name in set(names))


def sure(allowed: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the class of each voxel that may be one class only, and ``UNSURE`` elsewhere."""
    table = np.full(1 << CLASSES, UNSURE, np.uint8)
    table[1 << np.arange(CLASSES)] = np.arange(CLASSES)
    return table[allowed]
