"""Finds screenings by name: every module of this package that defines ``SCREENING`` is one.

Adding a screening is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

import appliance.screenings

if TYPE_CHECKING:
    from pydantic import BaseModel

    from appliance.screenings.contract import Screening


@cache
def screenings() -> dict[str, Screening]:
    """Return every screening by name, most urgent first."""
    found: list[Screening] = []
    for module_info in pkgutil.iter_modules(appliance.screenings.__path__):
        module = importlib.import_module(f"appliance.screenings.{module_info.name}")
        screening = getattr(module, "SCREENING", None)
        if screening is not None:
            found.append(screening)
    found.sort(key=lambda screening: (screening.order, screening.name))
    return {screening.name: screening for screening in found}


def settings_model(base: type[BaseModel]) -> Any:
    """Build the ``screenings`` section of the configuration from each screening's own settings model."""
    fields: dict[str, Any] = {
        name: (
            screening.settings_model,
            Field(default_factory=screening.settings_model, title=screening.title),
        )
        for name, screening in sorted(screenings().items())
    }
    return create_model(
        "ScreeningsSettings", __base__=base, __doc__="Thresholds and limits of each screening.", **fields
    )
