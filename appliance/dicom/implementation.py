"""How this appliance names itself on the wire and in files (PS3.7 Annex D.3.3.2)."""

from __future__ import annotations

from appliance import __version__

IMPLEMENTATION_CLASS_UID = "2.25.202894146379326860553477018583055554730"
"""Implementation Class UID (0002,0012): a UUID-derived UID, generated once and never changed."""

IMPLEMENTATION_VERSION_NAME = f"APPLIANCE_{__version__}"[:16]
"""Implementation Version Name (0002,0013), at most 16 characters."""
