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
    "segmentations": f"segmentations of two structures through {SLICES} slices of 512², beside what was there before",
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


def segmentations() -> float:
    """Write two Segmentations, each of a structure that is in every slice, of a scan that is only a header."""
    from datetime import datetime

    import numpy as np
    from pydicom.dataset import Dataset

    from appliance.anatomy.organ_map import OrganMap, PackUse
    from appliance.results.objects.general import Making, save
    from appliance.results.objects.segmentation import segmentations as make
    from appliance.results.objects.source import Source, SourceSlice

    class NoReport:
        revision, appliance_version, packs, screenings = 1, "benchmark", (), ()

    def affine(step_mm: float, pixel_mm: float) -> np.ndarray:
        return np.array([[0, 0, pixel_mm, 0], [0, pixel_mm, 0, 0], [step_mm, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)

    modules = Dataset()
    modules.PatientName, modules.StudyInstanceUID = "", "2.25.1"
    places = [(0.0, 0.0, 0.5 * index) for index in range(SLICES)]
    slices = tuple(
        SourceSlice("1.2.840.10008.5.1.4.1.1.2", f"2.25.{9000 + index}", None, place)
        for index, place in enumerate(places)
    )
    source = Source(modules, Dataset(), "2.25.2", "2.25.3", slices, 512, 512, affine(0.5, 0.7), 0.5)
    labels = np.zeros((SLICES // 6 + 1, 120, 120), np.uint8)
    labels[:, 20:100, 20:100], labels[:, 30:60, 30:60] = 1, 2
    pack = PackUse("benchmark", "1", "sha256:0", "f32", "CPU", "openvino", "shipped")
    organs = OrganMap(labels, affine(3.0, 3.0), {"liver": 1, "spleen": 2}, pack)
    making = Making(source, NoReport(), "box", 9001, datetime.now().astimezone(), "digest")  # type: ignore[arg-type]
    before = peak_mib()
    with tempfile.TemporaryDirectory() as name:
        for ds, _ in make(making, organs, ("liver", "spleen")):
            save(ds, Path(name) / "segmentation.dcm")
            del ds
    return peak_mib() - before


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
        return {what: in_child(what, name) for what in WHAT}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.write:
        write_scan(options.write)
    elif options.one:
        what, name = options.one
        print(screening(Path(name)) if what == "screening" else segmentations() if what == "segmentations" else tiles())
    elif options.json:
        print(json.dumps(measure()))
    else:
        print(f"\n### Peak memory ({datetime.now(UTC):%Y-%m-%d})\n\n| what | MiB |\n|---|---|")
        for key, value in measure().items():
            print(f"| {WHAT[key]} | {value:.0f} |")


if __name__ == "__main__":
    main()
