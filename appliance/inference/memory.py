"""Whether a network fits into the memory that is there, asked before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What an engine needs beside weights and activations: its code, its kernels, its bookkeeping.
_ENGINE_BYTES = 192 << 20
#: Operations that engines compute in the place of their input, or fuse into the operation before.
_IN_PLACE = frozenset(
    {
        "Add",
        "BatchNormInference",
        "Clamp",
        "Convert",
        "Divide",
        "Elu",
        "FakeQuantize",
        "Gelu",
        "LeakyRelu",
        "Multiply",
        "MVN",
        "PRelu",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Squeeze",
        "Subtract",
        "Swish",
        "Unsqueeze",
    }
)


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that may be taken.

    Attributes
    ----------
    free_bytes
        How much.
    limit
        What sets it, in words.
    """

    free_bytes: int
    limit: str


def room(limit_mib: int = 0, *, root: Path = Path("/")) -> Room:
    """Find out how much memory this process may still take.

    Parameters
    ----------
    limit_mib
        Largest resident size that the configuration allows this process; 0 is none.
    root
        Where ``proc`` and ``sys`` are.
    """
    rooms = [Room(int(psutil.virtual_memory().available), "free on this machine")]
    rooms += [Room(free, "left of what this service's control group may take") for free in _groups(root)]
    if limit_mib:
        free = (limit_mib << 20) - int(psutil.Process().memory_info().rss)
        rooms.append(Room(max(0, free), f"left of work.memory_limit_mib ({limit_mib} MiB)"))
    return min(rooms, key=lambda item: item.free_bytes)


def _groups(root: Path) -> Iterator[int]:
    """Free bytes of each control group (version 2) around this process that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, _, name = line.split(":", 2)
        if number != "0":
            continue
        folder = mount / name.lstrip("/")
        while folder.is_relative_to(mount):
            free = _free_in(folder)
            if free is not None:
                yield free
            folder = folder.parent


def _free_in(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        # Cached files count as used, and are given back when memory is asked for.
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, int(limit) - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def needed_bytes(network: Any, precision: str, *, reduced: bool | None = None) -> int:
    """Estimate what a network takes while it computes.

    Weights, and the largest sum of activations that are alive together when operations run in the order of the graph
    and element-wise ones compute in place.

    Parameters
    ----------
    network
        ``openvino.Model`` of static shapes.
    precision
        What it will compute in.
    reduced
        Whether activations that no FakeQuantize follows, and the answer, are held in 16 bits; left out, in bf16 only.
    """
    plain = 2 if (precision == "bf16" if reduced is None else reduced) else 4
    operations = network.get_ordered_ops()
    weights = sum(_held_bytes(op.output(0), plain) for op in operations if op.get_type_name() == "Constant")
    last_use: dict[str, int] = {}
    for number, op in enumerate(operations):
        for source in op.input_values():
            last_use[_name(source)] = number
    sizes: dict[str, int] = {}
    alive = peak = 0
    for number, op in enumerate(operations):
        kind = op.get_type_name()
        if kind in {"Constant", "Result"}:
            continue
        made = {_name(out): _elements(out) * _element_bytes(op, out, precision, plain) for out in op.outputs()}
        ending = sum(sizes.get(name, 0) for name in {_name(i) for i in op.input_values()} if last_use[name] == number)
        beside = 0 if kind in _IN_PLACE else ending
        alive += sum(made.values())
        peak = max(peak, alive - (ending - beside))
        alive -= ending
        sizes.update(made)
    return weights + peak + _ENGINE_BYTES


def _name(output: Any) -> str:
    return f"{output.get_node().get_name()}:{output.get_index()}"


def _elements(output: Any) -> int:
    shape = output.get_partial_shape()
    if shape.is_dynamic:
        return 0
    count = 1
    for size in shape.to_shape():
        count *= int(size)
    return count


def _held_bytes(constant: Any, plain: int) -> int:
    """Memory for weights: as they were read, which is single precision where they are no integers, and as computed."""
    kind = constant.get_element_type()
    return _elements(constant) * (4 + plain if kind.is_real() else 2 * int(kind.size))


def _element_bytes(op: Any, output: Any, precision: str, plain: int) -> int:
    if _follows(output, "Result"):
        return 2 * plain  # once as it was computed, and once in the order of the answer
    if precision == "int8" and (op.get_type_name() == "FakeQuantize" or _follows(output, "FakeQuantize")):
        return 1
    return plain


def _follows(output: Any, kind: str) -> bool:
    return any(target.get_node().get_type_name() == kind for target in output.get_target_inputs())
