"""Train the trunk network; resumable, seeded, on a CPU with bf16 autocast when it has it.

python train.py --data FOLDER [--data FOLDER …] --out RUN --steps 3000
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from classes import CLASSES, NAMES
from dataset import Patches
from network import Trunk

AVERAGE_DECAY = 0.99
#: Small and thin structures count more, or the many voxels of the body would drown them.
_WEIGHTS = {"background": 0.8, "body": 0.8, "airways": 5.0, "bone": 1.2, "vertebral_bodies": 1.0, "aorta": 1.2}
_WEIGHTS |= {"pulmonary_trunk": 1.5, "spleen": 1.2, "kidney_left": 1.5, "kidney_right": 1.5}
CLASS_WEIGHT = [_WEIGHTS.get(name, 1.0) for name in ("background", *NAMES)]
#: Of a voxel whose label leaves several classes open.
OPEN_WEIGHT = 0.8


def loss_of(logits: torch.Tensor, allowed: torch.Tensor, parity: tuple[int, int, int]) -> torch.Tensor:
    """Marginal cross entropy plus soft Dice over the classes present.

    Where several classes are possible, the entropy is that of their summed probability; where all are, the voxel counts
    in nothing. One voxel in eight is looked at, another one each time: ``parity`` says which slices, rows, columns.
    """
    slab, row, column = parity
    target = allowed[:, slab::2, row::2, column::2].reshape(-1)
    chosen = logits[:, :, slab::2, row::2, column::2].float().movedim(1, -1).reshape(-1, CLASSES)
    possible = ((target[:, None] >> torch.arange(CLASSES)) & 1).float()
    count = possible.sum(dim=1)
    probability = chosen.softmax(dim=1)
    entropy = -(probability * possible).sum(dim=1).clamp(min=1e-6).log()
    one = (count == 1).float()
    weight = torch.where(count == 1, possible @ torch.tensor(CLASS_WEIGHT), torch.tensor(OPEN_WEIGHT))
    weight = weight * (count < CLASSES)
    entropy = (weight * entropy).sum() / weight.sum().clamp(min=1.0)
    truth = possible * one[:, None]
    # A class is told apart where the label is it alone, or where the label shuts it out.
    told = torch.maximum(truth, 1 - possible)
    size = truth.sum(dim=0)
    dice = (2 * (probability * truth).sum(dim=0) + 1) / ((probability * told).sum(dim=0) + size + 1)
    return entropy + (1 - dice)[size > 0].mean()


def warm_start(network: Trunk, path: Path) -> None:
    """Take over every weight that fits; a head of other classes keeps those that both begin with."""
    old, new = torch.load(path, weights_only=True)["average"], network.state_dict()
    for key, value in new.items():
        if old[key].shape == value.shape:
            value.copy_(old[key])
        elif key == "head.weight":
            value[:, : old[key].shape[1]] = old[key][:, : value.shape[1]]
        else:
            value[: old[key].shape[0]] = old[key][: value.shape[0]]
    network.load_state_dict(new)


def main() -> None:  # noqa: PLR0915  # one training loop, read from top to bottom
    """Run or resume a training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--patch", type=int, nargs=3, default=(80, 80, 128))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = Trunk().to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-2)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    step = 0
    checkpoint = options.out / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step = state["average"], state["step"]
    elif options.start:
        warm_start(network, options.start)
        average = {key: value.clone() for key, value in network.state_dict().items()}
    patches = Patches(options.data, tuple(options.patch), options.seed + step)
    print(f"{len(patches.real)} scans, {len(patches.phantoms)} phantoms, from step {step}", flush=True)

    def draw() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [patches.draw() for _ in range(options.batch)]

    # The next patches are cut while the network learns from these.
    drawer = ThreadPoolExecutor(1)
    upcoming = drawer.submit(draw)
    log = (options.out / "log.jsonl").open("a")
    begun, seen, running = time.perf_counter(), step, None
    while step < options.steps:
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = options.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        items = upcoming.result()
        upcoming = drawer.submit(draw)
        hu = torch.stack([item[0] for item in items]).contiguous(memory_format=torch.channels_last_3d)
        allowed = torch.stack([item[1] for item in items])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(hu)
        loss = loss_of(logits, allowed, (step >> 2 & 1, step & 1, step >> 1 & 1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        step += 1
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value, 1 - decay)
            else:
                average[key].copy_(value)
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 20 == 0:
            seconds = (time.perf_counter() - begun) / (step - seen)
            entry = {"step": step, "loss": round(running, 4), "seconds_per_step": round(seconds, 2)}
            print(json.dumps(entry), file=log, flush=True)
        if step % 100 == 0 or step == options.steps:
            state = {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": step,
            }
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)


if __name__ == "__main__":
    main()
