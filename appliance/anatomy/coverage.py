"""Which regions of the body a scan shows, as far as the lungs and airways can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.plausibility import cut_off

if TYPE_CHECKING:
    from appliance.anatomy.organ_map import OrganMap

#: A region counts as shown from this height on, mm.
_LEAST_MM = 40.0
#: From the lungs' lowest point to about the umbilicus in an adult, mm; below that is the lower abdomen.
_UPPER_ABDOMEN_MM = 150.0


def regions(organs: OrganMap) -> tuple[str, ...]:
    """Name the regions that the scan shows at least in part.

    Parameters
    ----------
    organs
        The map; it must hold ``lung_left`` and ``lung_right``.

    Returns
    -------
    tuple[str, ...]
        Of ``"neck"``, ``"chest"``, ``"upper_abdomen"`` and ``"lower_abdomen"``, from the head down. Empty when no lung
        is seen: the first pack knows no other landmark, and a guess would be worse.
    """
    if not {"lung_left", "lung_right"} <= organs.structures:
        return ()
    levels = np.flatnonzero(organs.mask("lung_left", "lung_right").sum(axis=(1, 2)) * organs.voxel_ml > 0.5)
    if levels.size == 0:
        return ()
    step = organs.spacing_mm[0]
    body = np.flatnonzero((organs.labels > 0).any(axis=(1, 2)))
    above = (int(body[-1]) - int(levels[-1])) * step
    below = (int(levels[0]) - int(body[0])) * step
    ends = cut_off(organs, "lung_left") | cut_off(organs, "lung_right")
    found = []
    if "top" not in ends and above >= _LEAST_MM:
        found.append("neck")
    if (levels[-1] - levels[0] + 1) * step >= _LEAST_MM:
        found.append("chest")
    if "bottom" not in ends:
        # The lungs' lowest point lies in the costophrenic angle, well below the dome of the liver.
        if below >= 0:
            found.append("upper_abdomen")
        if below >= _UPPER_ABDOMEN_MM + _LEAST_MM:
            found.append("lower_abdomen")
    return tuple(found)
