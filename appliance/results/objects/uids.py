"""UIDs that follow from what an object is: the same result sent again is the same object, on whichever box."""

from __future__ import annotations

import uuid

#: A random UUID, generated once; changing it would make every result a new one.
_NAMESPACE = uuid.UUID("262bb9d2-e6a7-47ac-ba98-30f5f2fe5c9f")


def derived_uid(*parts: str) -> str:
    """Return a UID under 2.25 (PS3.5 B.2) made of a name-based UUID over the parts.

    Parameters
    ----------
    *parts
        What the thing is, from the widest to the narrowest; the order counts.
    """
    # the length of each part is part of the name: ("a", "bc") and ("ab", "c") are two things
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def object_uid(series_instance_uid: str, revision: int, digest: str, kind: str, name: str) -> str:
    """Return the SOP Instance UID of one result object.

    Parameters
    ----------
    series_instance_uid
        The scan's.
    revision
        Revision of the scan; a new revision gives new objects.
    digest
        Of everything that decides what is in it; another content is another instance.
    kind
        Such as ``"sr"``.
    name
        Which of that kind.
    """
    return derived_uid("instance", series_instance_uid, str(revision), digest, kind, name)


def series_uid(series_instance_uid: str, revision: int, digest: str, kind: str) -> str:
    """Return the Series Instance UID that all objects of one kind and one making share."""
    return derived_uid("series", series_instance_uid, str(revision), digest, kind)


def tracking_uid(series_instance_uid: str, *what: str) -> str:
    """Return the Tracking UID of a thing in a scan; it stays the same when the scan is screened again."""
    return derived_uid("tracking", series_instance_uid, *what)
