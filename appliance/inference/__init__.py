"""Engines, resampling and tiling: a scan goes in, labels come out."""
