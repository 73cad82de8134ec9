"""Write a pack again and again, killed at its first step, its second, … until it comes to its end: whole, or not there.

Run as ``python killed.py KIND OUT [SOURCE]``; a process of its own, because it forks. A step is whatever Python does to
files around ``OUT``: a file opened to be written, a folder made, a sync, a rename, a removal. Prints how often it was
killed before its folder had its name, and after.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from appliance.packs.new_folder import new_folder
from appliance.packs.pack import load

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def die_at(step: int, around: Path) -> None:
    """Let this process be killed when it begins its step with this number."""
    steps = count(1)

    def next_step() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        if event not in _EVENTS or (event == "open" and not arguments[2] & _WRITING):
            return
        if isinstance(arguments[0], str | os.PathLike) and around in Path(arguments[0]).absolute().parents:
            next_step()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        next_step()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)


def copied(out: Path, source: Path) -> None:
    """Write a pack that is there already, file by file."""
    with new_folder(out) as folder:
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, folder / path.name)


def quantised(out: Path, source: Path) -> None:
    """As ``packs quantize`` writes what its trial found; the trial itself writes nothing there."""
    from appliance.packs.quantising import pack
    from appliance.packs.quantising.scans import Source

    class NothingTried:
        int8 = Path("none.xml")

        def __init__(self, *_: object) -> None:
            pass

        def run(self, *_: object) -> tuple[list, list, dict]:
            return [], [], {}

    pack.Trial = NothingTried
    scans = [Source(name, name, lambda: None) for name in ("calibrates", "judges")]
    pack.quantise_pack(load(source), scans[:1], scans[1:], out)


def imported(out: Path, source: Path) -> None:
    """As ``packs import --from nnunet`` does it."""
    from appliance.packs.importing.nnunet import import_nnunet
    from appliance.packs.importing.write import Declaration

    said = Declaration("killed", "0.1.0", "CC BY 4.0", "open", "Tests of the import.")
    import_nnunet(source, out, said, folds=("0",), orientation="LPS")


KINDS = {"copied": copied, "quantised": quantised, "imported": imported}


def killed_at_each_step(kind: str, out: Path, source: Path) -> dict:
    """Run this file in a process of its own; see above."""
    command = [sys.executable, "-W", "ignore", __file__, kind, str(out), str(source)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Kill, look, and do it again one step later."""
    kind, out, source = KINDS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    if kind is imported:  # once for all children; nothing is computed here, so that they can be forked
        import dynamic_network_architectures.architectures.unet  # noqa: F401
        import onnx  # noqa: F401
        import torch  # noqa: F401
    before = after = 0
    for step in count(1):
        child = os.fork()
        if child == 0:
            die_at(step, out.parent)
            kind(out, source)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in {0, -signal.SIGKILL}:
            sys.exit(f"step {step} ended with {code}")
        if out.exists():
            load(out)  # whole, every digest
            if code:
                after += 1
                shutil.rmtree(out)
        elif code:
            before += 1
        if not code:
            break
    print(json.dumps({"before": before, "after": after, "left": sorted(path.name for path in out.parent.iterdir())}))


if __name__ == "__main__":
    main()
