"""From the class names of other people's models to the structure vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.anatomy.detectables import DETECTABLES
from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RIBS = range(1, 13)

_SIDES = ("left", "right")

#: TotalSegmentator's class names (versions 1 and 2) where they differ from ours.
TOTALSEGMENTATOR: dict[str, str] = {
    **{f"rib_{side}_{number}": f"ribs_{side}" for side in _SIDES for number in _RIBS},
    **{f"vertebrae_{name.removeprefix('vertebra_')}": name for name in STRUCTURES if name.startswith("vertebra_")},
    "vertebrae_S1": "sacrum",  # its uppermost part, cut off from the rest by a label of its own
    "clavicula_left": "clavicle_left",
    "clavicula_right": "clavicle_right",
    "iliac_vena_left": "iliac_vein_left",
    "iliac_vena_right": "iliac_vein_right",
}

#: TotalSegmentator's classes that are left out without asking, and why. Their voxels become background.
WITHOUT_CODE: dict[str, str] = {
    "portal_vein_and_splenic_vein": "DICOM codes either vein and not both together",
    **{f"kidney_cyst_{side}": "a finding within an organ, for which DICOM has no code" for side in _SIDES},
    **{f"hip_{side}": "DICOM codes the whole bony pelvis and the ilium, not one hip bone" for side in _SIDES},
    **{f"iliopsoas_{side}": "DICOM has no code for the muscle" for side in _SIDES},
    **{
        f"gluteus_{which}_{side}": "DICOM has no code for the muscle"
        for which in ("maximus", "medius", "minimus")
        for side in _SIDES
    },
    **{
        f"autochthon_{side}": "DICOM codes the erector spinae, which is only a part of these muscles" for side in _SIDES
    },
}

#: In place of a structure: the class is known and its voxels are background.
NOTHING = ""


def structure_channels(
    labels: Mapping[str, int], chosen: Mapping[str, str], *, drop_unknown: bool = False
) -> dict[str, tuple[int, ...]]:
    """Say which channels of a network mean which structure.

    Parameters
    ----------
    labels
        Class name to channel, background apart.
    chosen
        Class name to structure, or to an empty string for "leave it out"; what the caller says wins.
    drop_unknown
        Leave out classes that nobody names a structure for, instead of refusing; those of :data:`WITHOUT_CODE` are left
        out in any case.

    Returns
    -------
    dict[str, tuple[int, ...]]
        Structure to channels, in the order of the first channel.

    Raises
    ------
    PackError
        A class has no coded structure, or ``chosen`` speaks of a class or a structure that does not exist.
    """
    _check(labels, chosen)
    found: dict[str, list[int]] = {}
    unknown = []
    for name, channel in sorted(labels.items(), key=lambda item: item[1]):
        ours = name if name in STRUCTURES else NOTHING if name in WITHOUT_CODE else None
        structure = chosen.get(name, TOTALSEGMENTATOR.get(name, ours))
        if structure is None:
            unknown.append(name)
        elif structure != NOTHING:
            found.setdefault(structure, []).append(channel)
    if unknown and not drop_unknown:
        raise PackError(
            f"No coded structure is known for {_listed(unknown)}. Say which one each is with --map CLASS=STRUCTURE, "
            "leave one out with --map CLASS=, or leave all of them out with --drop-unknown."
        )
    if not found:
        raise PackError(
            "None of the network's classes is a structure of the vocabulary, so the pack would give nothing."
        )
    return {structure: tuple(channels) for structure, channels in found.items()}


def finding_classes(names: Sequence[str], chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Say which finding each class of a detector is.

    Parameters
    ----------
    names
        The detector's classes, in order.
    chosen
        Class name to finding; what the caller says wins.

    Returns
    -------
    tuple[str, ...]
        One finding a class.

    Raises
    ------
    PackError
        A class has no coded finding, or ``chosen`` speaks of a class that does not exist.
    """
    strange = [name for name in chosen if name not in names]
    if strange:
        raise PackError(f"The detector has no class {_listed(strange)}; it has {_listed(names)}.")
    found = tuple(chosen.get(name, name) for name in names)
    unknown = [name for name, finding in zip(names, found, strict=True) if finding not in DETECTABLES]
    if unknown:
        raise PackError(
            f"No coded finding is known for {_listed(unknown)}. Say which one each is with --map CLASS=FINDING; known: "
            f"{_listed(list(DETECTABLES))}."
        )
    return found


def _check(labels: Mapping[str, int], chosen: Mapping[str, str]) -> None:
    strange = [name for name in chosen if name not in labels]
    if strange:
        raise PackError(f"The network has no class {_listed(strange)}; it has {_listed(list(labels))}.")
    missing = sorted({name for name in chosen.values() if name != NOTHING and name not in STRUCTURES})
    if missing:
        raise PackError(f"The vocabulary has no structure {_listed(missing)}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
