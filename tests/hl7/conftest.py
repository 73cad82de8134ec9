"""A result with every outcome, and patients whose names are a test."""

from __future__ import annotations

import pytest

from appliance.hl7.oru import Subject
from appliance.hl7.patient import PatientHeader
from appliance.hl7.routing import Routing
from appliance.reasons import Reason, ReasonCode
from appliance.results.report import ScreeningResult
from appliance.screenings.contract import Finding, Measurement, Outcome, Status, Urgency

_BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

SCREENINGS = tuple(
    ScreeningResult(name, outcome, 0.1)
    for name, outcome in {
        "aorta": Outcome(
            Status.FINDING,
            "Ascending aorta 52 mm | above 50 & growing ~ \\ ^",
            Urgency.URGENT,
            measurements=(
                Measurement("ascending_aorta_diameter_mm", 52.125, "mm", code="LN:18012-5"),
                Measurement("pa_to_aorta_ratio", 2.0 / 3.0, "1"),
            ),
            findings=(Finding("SCT:74883004", "Thoracic aortic aneurysm", "aorta", _BOX, 3),),
            caveats=("5.0 mm slices, preferred are at most 3.0 mm",),
        ),
        "liver_fat": Outcome(
            Status.FINDING,
            "Liver 31 HU",
            measurements=(Measurement("liver_mean_hu", 31.25, "[hnsf'U]", site="liver", code="DCM:112181"),),
            findings=(Finding("SCT:197321007", "Steatosis of liver", "liver", _BOX, 3),),
        ),
        "coronary_calcium": Outcome(
            Status.NORMAL,
            "Agatston score 0",
            measurements=(Measurement("agatston_score", 0.0, "1", code="DCM:112058"),),
        ),
        "emphysema": Outcome(Status.ABSTAINED, reason=Reason(ReasonCode.NOISE_TOO_HIGH, "noise 60 HU")),
    }.items()
)

PATIENT = PatientHeader(
    names=("Zhang^XiaoDong^^Dr^Jr", "张^小东", ""),
    patient_id="P|1&2",
    issuer="HOSP",
    birth_date="19500101",
    sex="M",
    accession_number="A^7",
    study_instance_uid="1.2.3",
    admission_id="V1",
    study_at="20261130110000",
)


@pytest.fixture
def routing() -> Routing:
    return Routing("APPLIANCE", "box-7", "HIS", "HOSP")


@pytest.fixture
def subject() -> Subject:
    return Subject("1.2.3.4", 1, 1_796_000_000.0, SCREENINGS)
