"""Give the packaged network its INT8 twin, calibrated on the training scans and judged on the held-out ones.

python quantise.py --pack ../../trunk --data ../../../../shared/data
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path

from evaluate import volume_of
from scans import RawScan, read_all

from appliance.packs.pack import load
from appliance.packs.quantising.pack import MARGINS, quantise_pack
from appliance.packs.quantising.scans import Source

#: The shipped pack runs on many CPUs. On one with AMX, bf16 is about as quick as INT8; on the others it takes twice as
#: long, or is not there at all. So INT8 may be a little slower on the machine that makes the pack. Of some structures
#: the three judging scans show only a few millilitres (the kidneys' upper poles), whose Dice falls with every voxel.
SHIPPED = MARGINS.model_copy(
    update={"minimum_gain": -0.5, "maximum_dice_drop": 0.03, "maximum_volume_difference": 0.05}
)


def source(scan: RawScan) -> Source:
    """Wrap a scan; those of one patient stay on one side because the held-out ones are named by patient."""
    return Source(scan.name, scan.name, partial(volume_of, scan))


def main() -> None:
    """Quantise, judge, and put the result in the pack's place."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    pack = load(options.pack)
    scans = read_all(options.data)
    with tempfile.TemporaryDirectory() as folder:
        made = quantise_pack(
            pack,
            [source(scan) for scan in scans if not scan.held_out],
            [source(scan) for scan in scans if scan.held_out],
            Path(folder) / pack.name,
            margins=SHIPPED,
            version=pack.version,
            tell=partial(print, flush=True),
        )
        shutil.rmtree(options.pack)
        shutil.copytree(made.path, options.pack)
    print(load(options.pack).digest)


if __name__ == "__main__":
    main()
