"""The network: a small 3D U-Net made for INT8 on a CPU: BatchNorm, ReLU, widths in multiples of 16, additive skips."""

from __future__ import annotations

import itertools

import torch
from classes import CLASSES
from torch import nn

#: At 6, 12, 24 and 48 mm.
WIDTHS = (32, 64, 96, 128)
#: Hounsfield units reach the first layer as the mean of two windows, each mapped to −1 … 1: all from air to bone,
#: and soft tissue. Kidney and liver differ by 25 HU; in the wide window alone, INT8 would leave three steps for that.
WIDE_HU = (-1024.0, 1024.0)
SOFT_HU = (-160.0, 200.0)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def _window(hu: torch.Tensor, limits: tuple[float, float]) -> torch.Tensor:
    low, high = limits
    return (hu.clamp(low, high) - (low + high) / 2) * (2.0 / (high - low))


class Trunk(nn.Module):
    """Logits of the classes in ``classes.py`` from Hounsfield units.

    The first layer packs each 2 × 2 × 2 cell (with its rim) into channels and the last unpacks it, so that the answer
    is at 3 mm while no convolution ever runs there: that is where most of a U-Net's time and memory would go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, WIDTHS[0], 4, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(WIDTHS[0]),
            nn.ReLU(inplace=True),
            _block(WIDTHS[0], WIDTHS[0]),
        )
        self.down = nn.ModuleList(
            nn.Sequential(_block(fine, coarse, stride=2), _block(coarse, coarse))
            for fine, coarse in itertools.pairwise(WIDTHS)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in itertools.pairwise(WIDTHS)
        )
        self.merge = nn.ModuleList(_block(width, width) for width in WIDTHS[:-1])
        self.head = nn.ConvTranspose3d(WIDTHS[0], CLASSES, 2, stride=2)

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, 1, slices, rows, columns)`` HU to ``(batch, CLASSES, slices, rows, columns)`` logits."""
        x = 0.5 * (_window(hu, WIDE_HU) + _window(hu, SOFT_HU))
        skips = [self.stem(x)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        x = skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(up(x) + skips.pop())
        return self.head(x)
