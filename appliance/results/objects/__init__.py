"""The result as DICOM objects: a structured report, segmentations and key images that lie beside the scan in a PACS."""
