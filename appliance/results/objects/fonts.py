"""A font with Chinese glyphs, where the machine has one; it comes from the operating system's packages."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

#: Files of Debian's and Ubuntu's packages fonts-wqy-microhei, fonts-noto-cjk and fonts-wqy-zenhei, in order of choice.
CANDIDATES = (
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"),
)


@lru_cache(maxsize=1)
def chinese_font() -> Path | None:
    """Return the first of :data:`CANDIDATES` that is there and can be read."""
    from PIL import ImageFont

    for path in CANDIDATES:
        try:
            ImageFont.truetype(path, 12)
        except OSError:
            continue
        return path
    return None


@lru_cache(maxsize=16)
def font(size_px: int, *, chinese: bool) -> FreeTypeFont | ImageFont:
    """Return a font of a size; the built-in Latin one where no Chinese one is there or wanted."""
    from PIL import ImageFont

    path = chinese_font() if chinese else None
    return ImageFont.load_default(size=size_px) if path is None else ImageFont.truetype(path, size_px)
