"""The built-in test patient: a digital phantom with known answers, written as DICOM."""
