"""The built-in test patient: a digital phantom with known answers, written as DICOM."""

from appliance.phantom.api import label_map, render, write_series
from appliance.phantom.options import Calcification, PhantomOptions, WedgeFracture
from appliance.phantom.randomisation import random_options
from appliance.phantom.truth import Truth

__all__ = [
    "Calcification",
    "PhantomOptions",
    "Truth",
    "WedgeFracture",
    "label_map",
    "random_options",
    "render",
    "write_series",
]
