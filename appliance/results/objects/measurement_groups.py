"""Findings and numbers as measurement groups of TID 1500: TID 1410, 1411 and 1501 (PS3.16)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.results.objects import codes
from appliance.results.objects.uids import tracking_uid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        ImageRegion,
        MeasurementsAndQualitativeEvaluations,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    from appliance.results.objects.general import Making
    from appliance.results.objects.segmentation import SegmentReference
    from appliance.results.report import ScreeningResult
    from appliance.screenings.contract import Finding, Measurement

    Group = (
        PlanarROIMeasurementsAndQualitativeEvaluations
        | VolumetricROIMeasurementsAndQualitativeEvaluations
        | MeasurementsAndQualitativeEvaluations
    )


def measurement_groups(making: Making, references: Mapping[str, SegmentReference]) -> list[Group]:
    """Return the groups of every screening that gave a number or a finding.

    Parameters
    ----------
    making
        The scan and its report.
    references
        Structure to where it is segmented.
    """
    groups: list[Group] = []
    for result in making.report.screenings:
        groups += [_finding_group(making, result, place) for place in range(len(result.outcome.findings))]
        groups += _number_groups(making, result, references)
    return groups


def _finding_group(making: Making, result: ScreeningResult, place: int) -> Group:
    """TID 1410: what was found, where in the body, and its rectangle on the slice that shows it best."""
    import highdicom as hd

    finding = result.outcome.findings[place]
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(making, result.name, f"finding {place + 1}"),
        referenced_region=_region(making, finding),
        finding_type=codes.named(finding.code, finding.meaning).coded(),
        algorithm_id=_algorithm(making, result),
        finding_sites=_sites(finding.site),
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(codes.URGENCY.coded(), codes.URGENCIES[result.outcome.urgency].coded())
        ],
    )


def _number_groups(
    making: Making, result: ScreeningResult, references: Mapping[str, SegmentReference]
) -> Iterator[Group]:
    """TID 1411 for the numbers of a segmented organ, TID 1501 for the others; one group a site."""
    import highdicom as hd

    by_site: dict[str | None, list[Measurement]] = {}
    for item in result.outcome.measurements:
        by_site.setdefault(item.site, []).append(item)
    for site, items in by_site.items():
        found = next((one for one in result.outcome.findings if one.site == site), None)
        shared: dict[str, Any] = {
            "tracking_identifier": _tracking(making, result.name, site or "whole"),
            "finding_type": codes.named(found.code, found.meaning).coded() if found is not None else None,
            "algorithm_id": _algorithm(making, result),
            "finding_sites": _sites(site) if site is not None else None,
            "measurements": _numbers(items),
        }
        reference = references.get(site) if site is not None else None
        if reference is None:
            yield hd.sr.MeasurementsAndQualitativeEvaluations(**shared)
        else:
            segment = hd.sr.ReferencedSegment(
                "1.2.840.10008.5.1.4.1.1.66.4",
                reference.sop_instance_uid,
                reference.segment_number,
                source_series=hd.sr.SourceSeriesForSegmentation(making.source.series_instance_uid),
            )
            yield hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _numbers(items: Sequence[Measurement]) -> list[object]:
    import highdicom as hd

    agatston = codes.Concept("DCM", "112055", "Agatston scoring method")
    return [
        hd.sr.Measurement(
            name=codes.measured(item).coded(),
            value=float(f"{item.value:.6g}"),  # a Decimal String holds 16 characters; no number here is surer than that
            unit=codes.unit(item.unit).coded(),
            method=agatston.coded() if item.name == "agatston_score" else None,
        )
        for item in items
    ]


def _tracking(making: Making, screening: str, what: str) -> TrackingIdentifier:
    import highdicom as hd

    uid = tracking_uid(making.source.series_instance_uid, screening, what)
    return hd.sr.TrackingIdentifier(uid=uid, identifier=f"{screening} {what}")


def _algorithm(making: Making, result: ScreeningResult) -> AlgorithmIdentification:
    """TID 4019: the screening, the version of the appliance, the networks behind it and the settings."""
    import highdicom as hd

    report = making.report
    packs = [
        f"pack {item.name} {item.version} {item.digest} ({item.precision}, {item.device}, {item.engine})"
        for item in report.packs
    ]
    return hd.sr.AlgorithmIdentification(
        name=f"appliance {result.name}",
        version=report.appliance_version,
        parameters=[*packs, f"configuration {report.config_digest}"],
    )


def _sites(name: str) -> list[FindingSite] | None:
    import highdicom as hd

    site, side = codes.site(name), codes.laterality(name)
    if site is None:
        return None
    return [hd.sr.FindingSite(site.coded(), laterality=side.coded() if side is not None else None)]


def rectangle(making: Making, finding: Finding) -> tuple[float, float, float, float]:
    """Return where a finding's box meets its key slice: first row, first column, last row, last column.

    In image coordinates as PS3.3 C.18.6 has them: (0, 0) is the corner of the first pixel, not its centre.
    """
    volume, source = making.report.scan.volume, making.source
    corners = np.array(list(product(*zip(*finding.box_mm, strict=True))), dtype=np.float64)
    index = volume.to_index(corners)
    index[:, 0] = finding.key_slice  # across the volume's own axes, which are those of the patient's box
    received = (volume.to_patient_mm(index) - source.affine[:3, 3]) @ np.linalg.inv(source.affine[:3, :3]).T
    low, high = received[:, 1:].min(axis=0), received[:, 1:].max(axis=0) + 1.0
    size = np.array([source.rows, source.columns], dtype=np.float64)
    low = np.clip(low, 0.0, size - 1.0)
    high = np.clip(high, low + 1.0, size)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _region(making: Making, finding: Finding) -> ImageRegion:
    import highdicom as hd

    top, left, bottom, right = rectangle(making, finding)
    outline = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
    own = making.source.slices[finding.key_slice]
    frames = None if own.frame_number is None else [own.frame_number]
    image = hd.sr.SourceImageForRegion(own.sop_class_uid, own.sop_instance_uid, frames)
    return hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, outline, image)
