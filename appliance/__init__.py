"""One scan, many screenings: the appliance beside the CT scanner."""

__version__ = "0.1.0"
