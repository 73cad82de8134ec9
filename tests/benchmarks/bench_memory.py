"""Peak memory: one screening of 1,000 slices of 512², and the tiles of a network of 118 classes.

Each is measured in a process of its own. The scan is the built-in test patient in thin slices; the network's answers
are made up, so that only what the appliance itself holds beside them is counted.

Run as ``python tests/benchmarks/bench_memory.py [--json]``; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

SLICES = 1000
#: 300 × 400 × 400 mm at 3 mm, and the tile of TotalSegmentator's 3 mm model.
TRUNK, PATCH, CLASSES = (100, 133, 133), (112, 112, 128), 118
WHAT = {
    "screening": f"a screening of {SLICES} slices of 512², the whole process",
    "tiles": f"tiles of {CLASSES} classes over 300 × 400 × 400 mm at 3 mm, beside the network's own answer",
}


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def write_scan(folder: Path) -> None:
    from appliance.phantom import PhantomOptions, write_series

    write_series(PhantomOptions(slice_thickness_mm=0.6, slice_spacing_mm=0.4674), folder)
    for path in sorted(folder.glob("*.dcm"))[SLICES:]:
        path.unlink()


def screening(folder: Path) -> float:
    from appliance.config import Settings
    from appliance.screen import screen_series

    out = folder / "out"
    out.mkdir()
    files = sorted((folder / "scan").glob("*.dcm"))
    settings = Settings.model_validate({"box": {"state_directory": str(folder / "state")}})
    report = screen_series(files, settings=settings, out_directory=out)
    assert report.scan.volume.shape == (SLICES, 512, 512), report.scan.volume.shape
    assert report.packs
    return peak_mib()


def tiles() -> float:
    import numpy as np

    from appliance.inference.tiling import label_tiles

    logits = np.random.default_rng(0).standard_normal((CLASSES, *PATCH), dtype=np.float32)
    hu = np.zeros(TRUNK, np.int16)
    before = peak_mib()
    label_tiles(hu, lambda tile: logits, patch=PATCH, overlap=0.5, fill_hu=-1024, weighting="gaussian")
    return peak_mib() - before


def in_child(*arguments: str) -> float:
    command = [sys.executable, __file__, "--one", *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, __file__, "--write", f"{name}/scan"], check=True)
        return {"screening": in_child("screening", name), "tiles": in_child("tiles", name)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.write:
        write_scan(options.write)
    elif options.one:
        print(screening(Path(options.one[1])) if options.one[0] == "screening" else tiles())
    elif options.json:
        print(json.dumps(measure()))
    else:
        print(f"\n### Peak memory ({datetime.now(UTC):%Y-%m-%d})\n\n| what | MiB |\n|---|---|")
        for key, value in measure().items():
            print(f"| {WHAT[key]} | {value:.0f} |")


if __name__ == "__main__":
    main()
