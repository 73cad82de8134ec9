"""How sharp a reconstruction kernel is, told from its vendor's name.

Densitometry (LAA-950, Agatston, trabecular HU) is only comparable on smooth kernels: an edge-enhancing kernel makes
noise that looks like emphysema and over-shoots at calcium. Each rule says where its vendor's series turns from smooth
to sharp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.scan import KernelFamily

SOFT, MEDIUM, SHARP = KernelFamily.SOFT, KernelFamily.MEDIUM, KernelFamily.SHARP


@dataclass(frozen=True, slots=True)
class KernelRule:
    """One vendor's naming.

    Attributes
    ----------
    vendor
        Who names kernels so.
    pattern
        Regular expression for the whole name in upper case; a group ``number`` holds the sharpness where the vendor
        counts it.
    family
        The answer, when the name alone gives it.
    soft_to, medium_to
        For numbered kernels: the largest number that is still soft, and still medium.
    reason
        Why.
    """

    vendor: str
    pattern: str
    family: KernelFamily | None = None
    soft_to: int = 0
    medium_to: int = 0
    reason: str = ""

    def judge(self, name: str) -> KernelFamily | None:
        """Return the family of ``name``, or ``None`` when the name is not this vendor's."""
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return None
        if self.family is not None:
            return self.family
        number = int(match["number"])
        if number <= self.soft_to:
            return SOFT
        return MEDIUM if number <= self.medium_to else SHARP


RULES: tuple[KernelRule, ...] = (
    KernelRule("GE", r"(STANDARD|SOFT|STND|STD)(PLUS)?", SOFT, reason="body kernels without edge enhancement"),
    KernelRule("GE", r"STD\+|STANDARD\+|STND\+|DETAIL|CHEST|ORBIT|SMOOTH\+", MEDIUM, reason="mild edge enhancement"),
    KernelRule(
        "GE", r"(HD ?)?(LUNG|BONE|BONEPLUS|BONE\+|EDGE|EDGE\+|ULTRA|HDLUNG|HDBONE)", SHARP, reason="edge enhancing"
    ),
    KernelRule("GE", r"(HD ?)(STANDARD|STND|STD|SOFT)", SOFT, reason="high-definition variant of the body kernel"),
    KernelRule("GE", r"(HD ?)(DETAIL|CHEST)(PLUS|\+)?", MEDIUM, reason="high-definition variant"),
    # Siemens: letter(s) for the region, two digits for the sharpness, letter(s) for the speed mode.
    KernelRule(
        "Siemens",
        r"(?:[\d .]*A)?[BHUTCIJQDS][A-Z]?[\s-]?(?P<number>\d{2})[A-Z]{0,2}(?:[\\/_ -]?\d{1,2})?",
        soft_to=39,
        medium_to=49,
        reason="B10-B39 smooth, B40-B49 medium, B50 and above sharp; one scale for H, U, C, T, I, J, Br, Bl, Hr, Qr",
    ),
    KernelRule(
        "Philips", r"(?:B|A|EA|EB|SA|SB|UA|UB|XA|XB|IA|IB|F|XCA|XCB|CA|CB)", SOFT, reason="smooth body, head, cardiac"
    ),
    KernelRule("Philips", r"(?:C|EC|XCC|CC|XC|IMR1|IMR2|L1)", MEDIUM, reason="standard with enhancement"),
    KernelRule(
        "Philips", r"(?:D|E|L|Y[A-E]|Y-?SHARP|Y-?DETAIL|XCD|CD|YLUNG)", SHARP, reason="bone, lung and inner-ear filters"
    ),
    # Canon / Toshiba: the tens digit is the application, so that the number is not a scale of sharpness.
    KernelRule(
        "Canon",
        r"FC(?:0?[1-9]|1[0-9]|4[0-4]|6[0-9]|7[0-6])(?:[-_ ]?[A-Z][A-Z0-9]*)?",
        SOFT,
        reason="body and head soft tissue",
    ),
    KernelRule(
        "Canon", r"FC(?:2[0-9]|4[5-9])(?:[-_ ]?[A-Z][A-Z0-9]*)?", MEDIUM, reason="brain and body with enhancement"
    ),
    KernelRule("Canon", r"FC(?:3[0-9]|5[0-9]|8[0-9]|9[0-9])(?:[-_ ]?[A-Z][A-Z0-9]*)?", SHARP, reason="bone and lung"),
    # United Imaging, Neusoft, Minfound, Anke: words, most often region + sharpness + letter.
    KernelRule("UIH", r"(?:\w+_)?V?(?:VERY_?)?(?:SOFT|SMOOTH)(?:_\w{1,3})?", SOFT, reason="the name says so"),
    KernelRule("UIH", r"(?:\w+_)?(?:STANDARD|NORMAL|MEDIUM|MID)(?:_\w{1,3})?", MEDIUM, reason="the name says so"),
    KernelRule("UIH", r"(?:\w+_)?(?:V?SHARP|LUNG|BONE|EDGE|ULTRA)(?:_\w{1,3})?", SHARP, reason="the name says so"),
    KernelRule("Neusoft", r"F(?P<number>\d{2})", soft_to=20, medium_to=29, reason="F10-F20 soft, F30 and above sharp"),
)


def kernel_family(name: str) -> KernelFamily:
    """Tell the sharpness family of a reconstruction kernel.

    Parameters
    ----------
    name
        First value of Convolution Kernel (0018,1210).

    Returns
    -------
    KernelFamily
        ``UNKNOWN`` for a name that no rule knows; the caller decides what to do with doubt.
    """
    tidy = " ".join(name.upper().split())
    for rule in RULES:
        family = rule.judge(tidy)
        if family is not None:
            return family
    return KernelFamily.UNKNOWN
