"""Every number of the screenings on the open real scans beside what a reader saw there.

PYTHONPATH=../../.. python screened.py --pack ../../trunk [scan ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from appliance.anatomy.mapper import map_with
from appliance.inference.engines import open_engine
from appliance.packs.pack import load
from tests.screenings.panel import panel
from tests.screenings.real_scans import Row, names, real_scan, rows


def main() -> None:
    """Print the table, then bias and spread of each measurement that was read as a number."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("scans", nargs="*", default=names())
    options = parser.parse_args()
    pack = load(options.pack)
    engine = open_engine(pack, threads=2)
    table: list[Row] = []
    for name in options.scans:
        scan = real_scan(name)
        found = rows(name, panel(scan, map_with(scan.volume, pack, engine))[0])
        print(*found, sep="\n", flush=True)
        table += found
    for name in dict.fromkeys(row.name for row in table):
        read = [row for row in table if row.name == name and row.read[0].isdigit() and " to " not in row.read]
        errors = [row.measured - float(row.read.split()[0]) for row in read if row.measured is not None]
        if len(errors) > 1:
            spread = np.std(errors, ddof=1)
            print(f"{name}: bias {np.mean(errors):+.1f}, spread {spread:.1f}, {len(errors)} of {len(read)} scans")


if __name__ == "__main__":
    main()
