"""Which reconstruction of an acquisition a screening runs on, when a study brings several.

The same rule for every screening: among the series that show the same stretch of the same acquisition, one that is not
thicker than it prefers, if it says what it prefers; then the one whose kernel, then slice thickness, suits it best.
Each series is asked by itself and answers alike, whatever came first, so exactly one of them runs the screening and the
others name it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from appliance.reasons import Reason, ReasonCode
from appliance.scan import ContrastTag, KernelFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.scan import SeriesSketch
    from appliance.screenings.contract import Needs

#: An alternative shows at least this share of the series' own stretch: no organ of it may be lost by the choice.
_SHARED_STRETCH = 0.9
#: Where a screening does not say, soft reconstructions show densities best.
_KERNELS = (KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.UNKNOWN, KernelFamily.SHARP)


def better_series(
    own: SeriesSketch,
    others: Sequence[SeriesSketch],
    needs: Needs,
    unsuitable: Callable[[SeriesSketch, Needs], Reason | None],
) -> Reason | None:
    """Tell whether another series of the study should be screened instead of this one.

    Parameters
    ----------
    own
        The series at hand, which suits the screening.
    others
        The study's other usable series.
    needs
        The screening's.
    unsuitable
        Why a series cannot be used, by its header; see :mod:`appliance.screenings.planner`.

    Returns
    -------
    Reason or None
        ``better_series``, naming the one that is screened.
    """
    alternatives = [
        other
        for other in others
        if _same_acquisition(own, other)
        and unsuitable(other, needs) is None
        and not (needs.contrast_free and other.acquisition.contrast_tag is ContrastTag.GIVEN)
    ]
    best = min([own, *alternatives], key=lambda series: _rank(series, needs))
    if best is own:
        return None
    number = "another series" if best.series_number is None else f"series {best.series_number}"
    text = f"{number} of this study suits better: {best.slice_thickness_mm:.1f} mm slices, {_kernel(best)} kernel"
    return Reason(ReasonCode.BETTER_SERIES, text)


def _same_acquisition(own: SeriesSketch, other: SeriesSketch) -> bool:
    """Two reconstructions of one acquisition; a scan before and one after contrast are none."""
    if not own.frame_of_reference_uid or not own.acquisition_numbers:
        return False
    shared_mm = min(own.extent_mm[1], other.extent_mm[1]) - max(own.extent_mm[0], other.extent_mm[0])
    return (
        own.study_instance_uid == other.study_instance_uid
        and own.series_instance_uid != other.series_instance_uid
        and own.frame_of_reference_uid == other.frame_of_reference_uid
        and own.acquisition_numbers == other.acquisition_numbers
        and shared_mm >= _SHARED_STRETCH * (own.extent_mm[1] - own.extent_mm[0])
    )


def _rank(series: SeriesSketch, needs: Needs) -> tuple[bool, float, float, float, str]:
    """Order series, the best first; the identifier decides between equals, so that all agree.

    A kernel never makes up for slices thicker than the screening prefers: what they have lost no kernel shows.
    """
    order = [kernel for kernel in _KERNELS if not needs.kernels or kernel in needs.kernels]
    family = series.acquisition.kernel_family
    kernel = order.index(family) if family in order else len(order)
    thickness = series.slice_thickness_mm
    wanted = needs.preferred_slice_mm
    distance = thickness if wanted is None else abs(math.log(max(thickness, 0.1) / wanted))
    extent = series.extent_mm[1] - series.extent_mm[0]
    too_thick = wanted is not None and thickness > wanted * 1.01
    return too_thick, kernel, round(distance, 2), -round(extent, -1), series.series_instance_uid


def _kernel(series: SeriesSketch) -> str:
    return series.acquisition.kernel_family.value
