"""What several parts of the settings tree are made of."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads it when the class is made
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AETitle = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16,
        pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$",
    ),
]
ObjectKind = Literal["sr", "seg", "capture", "pdf", "ko"]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A part of the tree; unknown keys are an error, so that a typing mistake cannot pass silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """Transport encryption; absent means plain TCP."""

    certificate: Path = Field(title="PEM file with this side's certificate chain")
    private_key: Path = Field(title="PEM file with its key, mode 0600")
    trusted: Path = Field(title="PEM file with the certificates that peers must chain to")
