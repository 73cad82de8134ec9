"""The organ map: labels at working resolution in the patient's own geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.anatomy.structures import PARTS, with_wholes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PackUse:
    """Which network made a map, and how it was really run.

    Attributes
    ----------
    name, version, digest
        Identity of the pack; the digest is ``"sha256:…"`` over its manifest.
    precision
        What the engine really computed in: ``"int8"``, ``"bf16"`` or ``"f32"``.
    device, engine
        Such as ``"CPU"`` and ``"openvino"``.
    trust
        Why the pack may be used: ``"signed:<key id>"``, ``"shipped"`` or ``"unsigned"``.
    note
        A sentence about this scan, such as why the network did not run; empty when there is nothing to say.
    """

    name: str
    version: str
    digest: str
    precision: str
    device: str
    engine: str
    trust: str = "unsigned"
    note: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the entry of ``packs`` in the public JSON; ``note`` only where there is one."""
        note = {"note": self.note} if self.note else {}
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "precision": self.precision,
            "device": self.device,
            "engine": self.engine,
            "trust": self.trust,
            **note,
        }


@dataclass(frozen=True, slots=True, eq=False)
class OrganMap:
    """One label per voxel at working resolution.

    Attributes
    ----------
    labels
        uint8, shape ``(slices, rows, columns)``, zero is background. The slice axis grows towards the head, rows grow
        towards the back, columns grow towards the patient's left (so the first row and column are anterior right).
    affine
        float64 ``(4, 4)``: index ``(slice, row, column, 1)`` to LPS mm at the voxel's centre.
    values
        Structure name to label value.
    pack
        What made it.
    """

    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    values: dict[str, int]
    pack: PackUse

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along slices, rows and columns, mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitre."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def structures(self) -> frozenset[str]:
        """Names that may be asked for: what the packs gave, and what that makes up."""
        return with_wholes(self.values)

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """Return the union of the named structures, each with its parts.

        Raises
        ------
        KeyError
            When the map does not hold a structure of that name, nor what it is made of.
        """
        wanted = np.zeros(256, dtype=bool)
        for name in names:
            if name not in self.structures:
                raise KeyError(name)
            wanted[[self.values[part] for part in (name, *PARTS.get(name, ())) if part in self.values]] = True
        mask: NDArray[np.bool_] = wanted[self.labels]
        return mask

    def volume_ml(self, *names: str) -> float:
        """Volume of the union of the named structures, millilitre."""
        return float(np.count_nonzero(self.mask(*names))) * self.voxel_ml
