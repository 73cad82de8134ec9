"""The file: from the instances of a series to Hounsfield units in the patient, or a coded refusal."""
