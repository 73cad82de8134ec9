"""What a header says of intravenous contrast. Only the answer leaves this module, never the text it was read from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance.scan import ContrastTag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.dicom.image.elements import Elements

_AGENT = 0x00180010
_AGENT_SEQUENCE = 0x00180012
_ROUTE = 0x00181040
_ROUTE_SEQUENCE = 0x00180014
_VOLUME = 0x00181041
_USAGE_SEQUENCE = 0x00189341
_ADMINISTERED = 0x00189342
_SERIES_DESCRIPTION = 0x0008103E
_PROTOCOL_NAME = 0x00181030
_STUDY_DESCRIPTION = 0x00081030

# Scanners fill the agent with a word for "nothing" when the operator chose nothing.
_NO_AGENT = re.compile(
    r"^(no|non|none|nil|n|null|nothing|0|0 ?ml|-+|without|w/o|no contrast|unenhanced|native|plain|not applied|"
    r"not given|n/?a|not applicable|无|否|未用|平扫|不增强)\.?$",
    re.IGNORECASE,
)
# Contrast in the bowel leaves the blood as it is.
_NOT_INTRAVENOUS = re.compile(
    r"\b(oral|po|per ?os|rectal|(?:per )?rectum|enteral|enema|intrathecal|intra-?articular|water|milk)\b|"
    r"口服|直肠|灌肠",
    re.IGNORECASE,
)
_INTRAVENOUS = re.compile(r"\b(iv|i\.v\.?|intra ?venous|vein)\b|静脉|静注", re.IGNORECASE)

# Codes of CID 11 "Route of Administration" in SNOMED CT and in the older SNOMED-RT, for meanings in other languages.
_ROUTE_CODES = {
    "47625008": "intravenous", "G-D101": "intravenous",
    "26643006": "oral", "G-D140": "oral",
    "37161004": "rectal", "G-D160": "rectal",
    "72607000": "intrathecal", "G-D108": "intrathecal",
    "12130007": "intraarticular", "G-D109": "intraarticular",
}  # fmt: skip

_PLAIN = re.compile(
    r"平扫|非增强|未增强|无增强|不增强|"
    r"\b(non[ -]?contrast|no[ -]?contrast|without(?: iv)?(?: contrast)?|w/?o(?: iv)?(?: con\w*)?|wo|"
    r"unenhanced|non[ -]?enhanced|native|nativ|plain|pre[ -]?contrast|ncct|nect|nc|c-|sans injection|ohne km)(?![\w+])",
    re.IGNORECASE,
)
_ENHANCED = re.compile(
    r"增强|强化|动脉期|静脉期|门脉|门静脉|延迟期|实质期|造影|血管成像|"
    r"(?<!\w)c\+|\+c(?!\w)|(?<!\w)(ce|cect|cta|ctpa|ctv|post[ -]?contrast|enhanced|contrast|"
    r"(?:with|w/)(?: ?iv)?(?: ?con\w*)|arterial|venous|portal|nephrographic|pyelographic|delayed|"
    r"angio\w*|km|bolus)(?!\w)",
    re.IGNORECASE,
)


def read_contrast_tag(elements: Elements) -> ContrastTag:
    """Judge intravenous contrast from one instance's header.

    The contrast module (PS3.3 C.7.6.4 and, for enhanced objects, C.7.6.4b and Contrast/Bolus Usage C.8.15.3.12) is
    asked first, then the series description, the protocol name and the study description in this order: the
    nearer to the series, the more a word weighs. When module and series description contradict each other, as on
    scanners that copy the agent into every series of a study, the answer is that nobody knows.

    Parameters
    ----------
    elements
        Header of the instance.

    Returns
    -------
    ContrastTag
        ``UNKNOWN`` when the header is silent or contradicts itself.
    """
    module = _from_module(elements)
    series = from_descriptions((elements.text(_SERIES_DESCRIPTION),))
    if module is not ContrastTag.UNKNOWN:
        contradicts = series not in {ContrastTag.UNKNOWN, module}
        return ContrastTag.UNKNOWN if contradicts else module
    if series is not ContrastTag.UNKNOWN:
        return series
    return from_descriptions((elements.text(_PROTOCOL_NAME), elements.text(_STUDY_DESCRIPTION)))


def from_descriptions(descriptions: Iterable[str]) -> ContrastTag:
    """Judge contrast from free text, the first text that says anything deciding.

    A text that names both states, such as the study "平扫+增强" or "w/wo contrast", decides nothing.

    Parameters
    ----------
    descriptions
        Series, protocol or study descriptions, the weightiest first.

    Returns
    -------
    ContrastTag
        ``UNKNOWN`` when no text speaks of contrast.
    """
    for raw in descriptions:
        # Underscores and carets are word separators in descriptions but word characters to a regular expression.
        text = re.sub(r"[_^]", " ", raw)
        if re.search(r"w\s*/?\s*(?:and|&|\+|/)?\s*w/?o\b", text, re.IGNORECASE):
            continue
        plain = bool(_PLAIN.search(text))
        enhanced = bool(_ENHANCED.search(_PLAIN.sub(" ", text)))
        if plain != enhanced:
            return ContrastTag.NONE if plain else ContrastTag.GIVEN
    return ContrastTag.UNKNOWN


def _from_module(elements: Elements) -> ContrastTag:
    usage = elements.item(0x52009229)
    for item in usage.items(_USAGE_SEQUENCE) if usage else ():
        if item.text(_ADMINISTERED).upper() == "YES":
            return ContrastTag.GIVEN
    # The route stands beside the agents (C.7.6.4), and in enhanced objects within each of them (C.7.6.4b).
    route = " ".join((elements.text(_ROUTE), _coded_routes(elements)))
    for item in elements.items(_AGENT_SEQUENCE):
        routes = _coded_routes(item) or route
        named = " ".join((item.text(0x00080104), item.text(0x00080100)))
        if not _is_elsewhere(named, routes) and not _NO_AGENT.match(item.text(0x00080104)):
            return ContrastTag.GIVEN
    if _AGENT in elements:
        agent = elements.text(_AGENT)
        if agent and _NO_AGENT.match(agent):
            return ContrastTag.NONE
        if agent:
            elsewhere = _is_elsewhere(agent, route)
            return ContrastTag.UNKNOWN if elsewhere else ContrastTag.GIVEN
    volume_ml = elements.number(_VOLUME)
    if volume_ml is not None and volume_ml > 0 and not _is_elsewhere("", route):
        return ContrastTag.GIVEN
    return ContrastTag.UNKNOWN


def _coded_routes(elements: Elements) -> str:
    """Return the administration routes in words, each by its meaning and by its code."""
    words = []
    for route in elements.items(_ROUTE_SEQUENCE):
        words += [route.text(0x00080104), _ROUTE_CODES.get(route.text(0x00080100).upper(), "")]
    return " ".join(filter(None, words))


def _is_elsewhere(agent: str, route: str) -> bool:
    """Tell whether the agent went somewhere else than into a vein."""
    text = f"{agent} {route}"
    return bool(_NOT_INTRAVENOUS.search(text)) and not _INTRAVENOUS.search(text)
