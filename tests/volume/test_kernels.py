"""Vendors' kernel names and what they mean."""

from __future__ import annotations

import pytest

from appliance.dicom.image.kernels import RULES, kernel_family


@pytest.mark.parametrize(
    "name",
    [
        "STANDARD", "SOFT", "B30f", "B31s", "B20f", "I30f", "Br36", "Br38f", "Bf37", "Hr38", "Qr36d", "J30s", "I31f\\3",
        "A", "B", "FC01", "FC08-H", "FC13", "FC18", "B_SOFT_B", "B_VSOFT_A", "F10", "standard",
    ],
)  # fmt: skip
def test_soft(name):
    assert kernel_family(name) == "soft"


@pytest.mark.parametrize(
    "name", ["DETAIL", "CHEST", "STD+", "B40f", "B45f", "I44f", "Br40", "Bv44", "C", "FC26", "B_STANDARD"]
)
def test_medium(name):
    assert kernel_family(name) == "medium"


@pytest.mark.parametrize(
    "name",
    [
        "LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "B50f", "B60f", "B70f", "B80f", "H60s", "I70f", "Bl57", "Br64",
        "59 .10.AB50", "D", "L", "YA", "YB", "FC30", "FC51", "FC52", "FC86", "B_SHARP_C", "B_BONE", "LUNG_B", "F40",
    ],
)  # fmt: skip
def test_sharp(name):
    assert kernel_family(name) == "sharp"


@pytest.mark.parametrize("name", ["", "??", "MY KERNEL", "12", "Z99Q", "B7", "标准"])
def test_unknown(name):
    assert kernel_family(name) == "unknown"


def test_every_rule_says_why():
    assert all(rule.reason and rule.vendor for rule in RULES)
