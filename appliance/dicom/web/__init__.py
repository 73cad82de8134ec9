"""DICOMweb as a user: storing objects over HTTP (PS3.18)."""
