"""Digital patients for the screenings: a scan, its true organ map (or the network's own), and the truth about them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.derived import Anatomy
from appliance.anatomy.organ_map import OrganMap, PackUse
from appliance.phantom import PhantomOptions, label_map, render
from appliance.scan import Acquisition, ContrastTag, KernelFamily, Scan, SourceFrame, Volume

if TYPE_CHECKING:
    from appliance.phantom.truth import Truth

TRUE_MAP = PackUse("truth", "0.0.0", "sha256:0", "f32", "CPU", "none")


def scan_of(options: PhantomOptions, volume: Volume) -> Scan:
    """What the DICOM room would say of this phantom."""
    frames = tuple(SourceFrame(f"1.2.3.{index}", None, (0.0, 0.0, float(index))) for index in range(volume.shape[0]))
    acquisition = Acquisition(
        kvp=options.kvp,
        kernel=options.kernel,
        kernel_family=KernelFamily(options.kernel),
        slice_thickness_mm=options.slice_thickness_mm,
        contrast_tag=ContrastTag.GIVEN if options.contrast_in_header else ContrastTag.NONE,
        patient_age_years=float(options.age_years),
        patient_sex=options.sex,
        patient_height_m=options.patient_height_m,
        patient_position=options.patient_position,
    )
    return Scan(Volume(np.array(volume.hu), np.array(volume.affine), frames), acquisition, "1.2", "1.2.3")


def organs_of(options: PhantomOptions, spacing_mm: float = 3.0, *, levels: bool = False) -> OrganMap:
    """The true organ map, as a network that makes no mistake would give it."""
    _, labels, affine, values = label_map(options, spacing_mm, levels=levels)
    return OrganMap(labels, affine, values, TRUE_MAP)


@lru_cache(maxsize=2)
def patient(options: PhantomOptions, *, levels: bool = False) -> tuple[Scan, OrganMap, Truth]:
    """A scan, its true organ map, and the truth. Keep the scan short: a whole trunk at 1 mm takes half a minute."""
    volume, truth = render(options)
    return scan_of(options, volume), organs_of(options, levels=levels), truth


def examine(screening, options: PhantomOptions, settings=None, *, levels: bool = False):
    """Run a screening on a patient with the true organ map; returns its outcome and the truth."""
    scan, organs, truth = patient(options, levels=levels)
    return screening.run(scan, Anatomy(scan.volume, organs), settings or screening.settings_model()), truth


def value(outcome, name: str, site: str | None = None) -> float:
    """One measurement of an outcome."""
    return next(item.value for item in outcome.measurements if (item.name, item.site) == (name, site))


def with_voxels(scan: Scan, change) -> Scan:
    """The scan with its densities changed in place by a function."""
    hu = np.array(scan.volume.hu)
    change(hu)
    return replace(scan, volume=Volume(hu, np.array(scan.volume.affine), scan.volume.frames))


def with_block(scan: Scan, position_mm, size_mm: float, density_hu: int) -> Scan:
    """The scan with a block of one density at a place in the patient."""
    middle = scan.volume.to_index(np.array(position_mm, dtype=np.float64))
    half = 0.5 * size_mm / np.array(scan.volume.spacing_mm)
    low, high = np.rint(middle - half).astype(int), np.rint(middle + half).astype(int) + 1

    def change(hu):
        hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = density_hu

    return with_voxels(scan, change)
