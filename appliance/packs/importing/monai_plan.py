"""What a MONAI bundle does before and after its network, checked before anything is built from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.packs.importing.monai_config import Configuration, Described

_WORDS = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "head", "I": "feet"}
_AXES = ("LR", "AP", "SI")
_AXIS_COUNT = 3
#: Transforms that read or store and change no voxel.
_HARMLESS = {
    *("LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor", "CastToType", "AddChannel", "AsChannelFirst"),
    *("Identity", "SelectItems", "DeleteItems", "ToDevice"),
}
#: Options that change no voxel.
_PLUMBING = {"keys", "allow_missing_keys", "dtype", "lazy", "meta_keys", "meta_key_postfix", "device", "labels"}
_WHOLE_IMAGE = {"ScaleIntensity", "NormalizeIntensity", "ScaleIntensityRangePercentiles", "HistogramNormalize"}


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is done to Hounsfield units: clip, subtract, divide.

    Attributes
    ----------
    clip_hu
        Limits, or ``None``.
    subtract_hu, divide_hu
        After clipping.
    clip_first
        Whether the limits are put on the scan before it is resampled.
    """

    clip_hu: tuple[float, float] | None = None
    subtract_hu: float = 0.0
    divide_hu: float = 1.0
    clip_first: bool = False

    def after(self, factor: float, offset: float) -> Scaling:
        """Scale once more: what was ``x`` becomes ``x · factor + offset``."""
        return replace(
            self, subtract_hu=self.subtract_hu - offset * self.divide_hu / factor, divide_hu=self.divide_hu / factor
        )

    def hu_of(self, value: float) -> float:
        """Hounsfield units that become a value."""
        return value * self.divide_hu + self.subtract_hu


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to a scan before the network sees it.

    Attributes
    ----------
    axes
        Where the network's axes grow to, as in a pack's manifest.
    spacing_mm
        Along them.
    scaling
        Of intensities.
    facts
        Lines for the card.
    """

    axes: str
    spacing_mm: tuple[float, float, float]
    scaling: Scaling
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: shape of a tile, overlap, and whether tiles are weighted by a Gaussian."""

    patch: tuple[int, int, int]
    overlap: float
    gaussian: bool
    pad_value: float
    facts: tuple[str, ...]


def base_name(component: Described) -> str:
    """Name of a transform without the ending that says it works on dictionaries."""
    name = component.last
    for ending in ("Dict", "D", "d"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def transforms(configuration: Configuration, key: str) -> list[Described]:
    """Read the transforms of a ``Compose``; none where the configuration has none."""
    found = configuration.get(key)
    if found is None:
        return []
    whole = configuration.component(found, key)
    if whole.last != "Compose":
        raise PackError(f"{configuration.name}: {key} is {whole.name!r}, not a Compose of transforms.")
    steps = whole.keywords.get("transforms", [])
    if not isinstance(steps, list):
        configuration.plain(steps, f"{key}.transforms")
        raise PackError(f"{configuration.name}: {key}.transforms is not a list.")
    return [configuration.component(step, f"{key}.transforms") for step in steps]


def read_preprocessing(configuration: Configuration, orientation: str) -> Preprocessing:
    """Interpret the transforms before the network.

    Parameters
    ----------
    configuration
        ``inference.json``.
    orientation
        ``"auto"`` for what ``Orientationd`` says, or three letters such as ``"RAS"`` where the bundle has none.

    Raises
    ------
    PackError
        A transform is not known, takes its figures from the whole image, or the grid is not said.
    """
    found = _Found("" if orientation == "auto" else orientation)
    for step in transforms(configuration, "preprocessing"):
        name = base_name(step)
        if name in _HARMLESS or (step.disabled and name != "Spacing"):
            continue
        options = {
            key: configuration.plain(value, f"preprocessing, {step.last}")
            for key, value in step.keywords.items()
            if key not in _PLUMBING
        }
        try:
            _take(configuration, found, step, name, options)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise PackError(f"{configuration.name}: {step.last} holds something odd ({error}).") from error
    if found.spacing_mm is None:
        raise PackError(f"{configuration.name}: has no Spacingd, so nothing says which spacing the network knows.")
    axes = _axes(found.code, configuration.name)
    said = "The caller said so." if orientation != "auto" else "Orientationd says so."
    return Preprocessing(axes, found.spacing_mm, found.scaling, (f"Axes: {axes}. {said}", *found.facts))


@dataclass(slots=True)
class _Found:
    """What the transforms read so far have said."""

    code: str
    spacing_mm: tuple[float, float, float] | None = None
    scaling: Scaling = field(default_factory=Scaling)
    facts: list[str] = field(default_factory=list)


def _take(configuration: Configuration, found: _Found, step: Described, name: str, options: dict[str, Any]) -> None:
    if name == "Orientation":
        if found.spacing_mm is not None:
            raise PackError(f"{configuration.name}: turns the axes after resampling, which packs cannot repeat.")
        found.code = found.code or str(options.get("axcodes") or "RAS")
    elif name == "Spacing":
        found.spacing_mm = _spacing(configuration, options)
        if step.disabled:
            found.facts.append("Spacingd is switched off in the bundle, whose scans were stored at its spacing already")
    elif name == "ScaleIntensityRange":
        found.scaling = _range(configuration, found.scaling, options, first=found.spacing_mm is None)
    elif name == "NormalizeIntensity" and options.get("subtrahend") is not None and options.get("divisor"):
        found.scaling = _normalised(configuration, found.scaling, options)
    elif name in _WHOLE_IMAGE:
        raise PackError(
            f"{configuration.name}: {step.last} takes its figures from the whole image, so the same tissue means "
            "something else in every scan; packs hold networks behind fixed figures (ScaleIntensityRanged, or "
            "NormalizeIntensityd with subtrahend and divisor)."
        )
    else:
        raise PackError(
            f"{configuration.name}: the preprocessing step {step.last} is not known; known are Orientationd, "
            "Spacingd, ScaleIntensityRanged and NormalizeIntensityd with fixed figures."
        )


def read_window(configuration: Configuration, window: Described, patch: Sequence[int] = ()) -> Window:
    """Interpret a ``SlidingWindowInferer``, or the call that gives a detector one.

    Parameters
    ----------
    configuration, window
        Of the bundle.
    patch
        Another shape of a tile, which the caller wants.

    Raises
    ------
    PackError
        It is of a kind that packs cannot repeat.
    """
    named = {"roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval"}
    said = {key: configuration.plain(value, window.last) for key, value in window.keywords.items() if key in named}
    if window.arguments:
        said["roi_size"] = configuration.plain(window.arguments[0], window.last)
    size = list(patch) or said.get("roi_size")
    sizes = [size] * _AXIS_COUNT if isinstance(size, int) else size
    if (
        not isinstance(sizes, list)
        or len(sizes) != _AXIS_COUNT
        or not all(isinstance(item, int) and item > 0 for item in sizes)
    ):
        raise PackError(f"{configuration.name}: {window.last} has no fixed roi_size of three numbers: {size!r}.")
    overlap = said.get("overlap", 0.25)
    if isinstance(overlap, list):
        if len(set(overlap)) != 1:
            raise PackError(f"{configuration.name}: {window.last} overlaps tiles differently along each axis.")
        overlap = overlap[0]
    mode, sigma = str(said.get("mode", "constant")).lower(), said.get("sigma_scale", 0.125)
    if mode not in {"constant", "gaussian"} or (mode == "gaussian" and sigma != 0.125):
        raise PackError(
            f"{configuration.name}: {window.last} blends tiles in a way that is not known ({mode}, {sigma})."
        )
    if not isinstance(overlap, (int, float)) or not 0 <= overlap < 1:
        raise PackError(f"{configuration.name}: {window.last} has an overlap of {overlap!r}.")
    facts = [f"Tiles of {' × '.join(map(str, sizes))}" + (" as the caller wished" if patch else "")]
    padding = str(said.get("padding_mode", "constant")).lower()
    if padding != "constant":
        facts.append(f"Where a scan is smaller than a tile, MONAI pads it by {padding}; the pack pads with one value")
    cval = said.get("cval", 0.0)
    return Window((sizes[0], sizes[1], sizes[2]), float(overlap), mode == "gaussian", float(cval), tuple(facts))


def read_postprocessing(configuration: Configuration) -> tuple[bool, tuple[str, ...]]:
    """Say how labels are taken from the network's answer.

    Returns
    -------
    single : bool
        Whether one channel is compared with one half behind a sigmoid, instead of taking the largest channel.
    facts : tuple[str, ...]
        Lines for the card: what is done besides and is not repeated.
    """
    sigmoid, threshold, largest, other = False, None, False, []
    for step in transforms(configuration, "postprocessing"):
        name = base_name(step)
        if name == "Activations":
            sigmoid = configuration.plain(step.keywords.get("sigmoid", False), step.last) is True
        elif name == "AsDiscrete":
            largest = configuration.plain(step.keywords.get("argmax", False), step.last) is True
            threshold = configuration.plain(step.keywords.get("threshold"), step.last)
        elif name not in {*_HARMLESS, "Invert", "SaveImage", "CopyItems"}:
            other.append(step.last)
    single = not largest and (sigmoid or threshold is not None)
    if single and (not sigmoid or threshold not in {0.5, None}):
        raise PackError(
            f"{configuration.name}: labels are taken with a threshold of {threshold}; 0.5 is what packs repeat."
        )
    facts = (f"Not repeated after the network: {', '.join(other)}",) if other else ()
    return single, facts


def _spacing(configuration: Configuration, options: dict[str, Any]) -> tuple[float, float, float]:
    found = options.get("pixdim")
    values = [found] * _AXIS_COUNT if isinstance(found, (int, float)) else found
    if (
        not isinstance(values, list)
        or len(values) != _AXIS_COUNT
        or not all(isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in values)
    ):
        raise PackError(f"{configuration.name}: Spacingd has no fixed pixdim of three millimetres: {found!r}.")
    mode = options.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, list) and mode else mode
    strange = [key for key in ("diagonal", "scale_extent", "min_pixdim", "max_pixdim") if options.get(key)]
    padding = options.get("padding_mode", "border")
    if mode != "bilinear" or strange or padding not in ("border", ["border"]):
        raise PackError(
            f"{configuration.name}: Spacingd resamples in a way packs cannot repeat ({', '.join(strange) or mode}); "
            "linear interpolation with the border continued is what they know."
        )
    return float(values[0]), float(values[1]), float(values[2])


def _range(configuration: Configuration, scaling: Scaling, options: dict[str, Any], *, first: bool) -> Scaling:
    try:
        low, high = float(options["a_min"]), float(options["a_max"])
        bottom = 0.0 if options.get("b_min") is None else float(options["b_min"])
        top = 1.0 if options.get("b_max") is None else float(options["b_max"])
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{configuration.name}: ScaleIntensityRanged lacks a_min or a_max.") from error
    if not (low < high and bottom < top):
        raise PackError(f"{configuration.name}: ScaleIntensityRanged turns the range upside down or empties it.")
    factor = (top - bottom) / (high - low)
    clip = scaling.hu_of(low), scaling.hu_of(high)
    scaled = scaling.after(factor, bottom - low * factor)
    if not options.get("clip", False):
        return scaled
    if scaling.clip_hu is not None:
        raise PackError(f"{configuration.name}: clips intensities twice, which packs cannot repeat.")
    return replace(scaled, clip_hu=clip, clip_first=first)


def _normalised(configuration: Configuration, scaling: Scaling, options: dict[str, Any]) -> Scaling:
    figures = []
    for key in ("subtrahend", "divisor"):
        value = options[key]
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, (int, float)):
            raise PackError(f"{configuration.name}: NormalizeIntensityd has no single number as {key}.")
        figures.append(float(value))
    if options.get("nonzero") or figures[1] <= 0:
        raise PackError(f"{configuration.name}: NormalizeIntensityd leaves zeros out or divides by {figures[1]:g}.")
    return scaling.after(1 / figures[1], -figures[0] / figures[1])


def _axes(code: str, name: str) -> str:
    if not code:
        raise PackError(
            f"{name}: has no Orientationd, so nothing says along which axes the training images lay; say "
            "it with --orientation."
        )
    letters = code.upper()
    if len(letters) != len(_AXES) or any(sum(letter in axis for letter in letters) != 1 for axis in _AXES):
        raise PackError(f"{code!r} is not an orientation; three letters are needed, such as RAS or LPS.")
    return "-".join(_WORDS[letter] for letter in letters)
