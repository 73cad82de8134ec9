"""The patient's name as people write it: for pixels, and for the alert board where a site wants it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_OBJECTS = "objects"  # write.FOLDER, which would bring numpy and highdicom along


def written_name(person_name: str) -> str:
    """Return a person name (PS3.5, 6.2.1.2) without its carets; of a name in several scripts the ideographic one."""
    groups = [group for group in person_name.split("=") if group.strip("^ ")]
    chosen = groups[1] if len(groups) > 1 else "".join(groups[:1])
    return " ".join(part.strip() for part in chosen.split("^") if part.strip())


def name_in_results(folder: Path) -> str:
    """Return the name in the objects of a result, empty where none says it.

    Parameters
    ----------
    folder
        The scan's folder below the results.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    for path in sorted((folder / _OBJECTS).glob("*.dcm")):
        try:
            ds = dcmread(path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", "PatientName"])
        except (OSError, InvalidDicomError):
            continue
        return written_name(str(ds.get("PatientName", "")))
    return ""
