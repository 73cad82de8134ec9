"""Train the trunk network; resumable, seeded, on a CPU with bf16 autocast when it has it.

python train.py --data FOLDER [--data FOLDER …] --out RUN --steps 3000
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from dataset import IGNORE, Patches
from network import CLASSES, Trunk

AVERAGE_DECAY = 0.99


def loss_of(logits: torch.Tensor, labels: torch.Tensor, parity: tuple[int, int]) -> torch.Tensor:
    """Cross entropy plus soft Dice over the classes present; what is marked "do not know" counts in neither.

    One voxel in four is looked at, another one each time: ``parity`` says which rows and columns.
    """
    row, column = parity
    target = labels[:, :, row::2, column::2].reshape(-1)
    chosen = logits[:, :, :, row::2, column::2].float().movedim(1, -1).reshape(-1, CLASSES)
    known = (target != IGNORE).float()
    target = target.masked_fill(target == IGNORE, 0)
    logarithms = chosen.log_softmax(dim=1)
    own = logarithms.gather(1, target[:, None])[:, 0]
    weight = torch.tensor([0.6, 0.8, 1.0, 1.0, 10.0, 1.2])[target] * known
    entropy = -(weight * own).sum() / weight.sum().clamp(min=1.0)
    truth = torch.bincount(target, known, minlength=CLASSES).float()
    overlap = torch.zeros(CLASSES).scatter_add(0, target, own.exp() * known)
    dice = (2 * overlap + 1) / (known @ logarithms.exp() + truth + 1)
    return entropy + (1 - dice)[truth > 0].mean()


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
        network.load_state_dict(torch.load(options.start, weights_only=True)["average"])
        average = {key: value.clone() for key, value in network.state_dict().items()}
    patches = Patches(options.data, tuple(options.patch), options.seed + step)
    print(f"{len(patches.real)} scans, {len(patches.phantoms)} phantoms, from step {step}", flush=True)
    log = (options.out / "log.jsonl").open("a")
    begun, seen, running = time.perf_counter(), step, None
    while step < options.steps:
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = options.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        items = [patches.draw() for _ in range(options.batch)]
        hu = torch.stack([item[0] for item in items]).contiguous(memory_format=torch.channels_last_3d)
        labels = torch.stack([item[1] for item in items])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(hu)
        loss = loss_of(logits, labels, (step & 1, step >> 1 & 1))
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
