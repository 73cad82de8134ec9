"""What detection packs can find: names that screenings ask for, coded as finding and site.

Beside :mod:`appliance.anatomy.structures`, because a finding is no part of the organ map: it has a box and a score, and
no voxels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detectable:
    """A coded kind of finding.

    Attributes
    ----------
    name
        The vocabulary's own name, as packs and screenings write it.
    code, meaning
        SNOMED CT concept of the finding and its meaning.
    site_code, site
        SNOMED CT concept of where it is looked for, and its meaning.
    """

    name: str
    code: str
    meaning: str
    site_code: str
    site: str


_ALL = (Detectable("lung_nodule", "27925004", "Nodule", "39607008", "Lung"),)

DETECTABLES: dict[str, Detectable] = {detectable.name: detectable for detectable in _ALL}
