"""Images per second of one training step (forward and backward) of each architecture, and its size.

python tests/bench/networks.py [--batch 128] [--threads 1] [--rounds 5] [--device cpu] [--size 32]
                               [--only NAME ...] [--compile]

bf16 autocast, channels_last. The best round counts: others may be using the machine. Single-step
adversarial training (N-FGSM) costs two such steps, PGD-10 training eleven.
"""

import argparse
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from guard.networks import build, flops, parameters

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain w16": ("plain", {"width": 16}),
    "plain w24": ("plain", {"width": 24}),
    "plain w32": ("plain", {"width": 32}),
    "residual w16": ("residual", {"width": 16}),
    "residual w20": ("residual", {"width": 20}),
    "residual w32": ("residual", {"width": 32}),
    "broad w24": ("broad", {"width": 24}),
    "broad w32": ("broad", {"width": 32}),
    "resnet-14 w16": ("resnet", {"depth": 14, "width": 16}),
    "resnet-20 w16": ("resnet", {"depth": 20, "width": 16}),
    "resnet-32 w16": ("resnet", {"depth": 32, "width": 16}),
    "preact-20 w16": ("preact", {"depth": 20, "width": 16}),
    "resnet-10 w16": ("resnet", {"depth": 10, "width": 16}),
    "preact-10 w16": ("preact", {"depth": 10, "width": 16}),
    "preact-18 w16": ("preact", {"depth": 18, "width": 16}),
    "preact-18 w24": ("preact", {"depth": 18, "width": 24}),
    "preact-18 w32": ("preact", {"depth": 18, "width": 32}),
    "resnet-18 w64": ("resnet", {"depth": 18, "width": 64}),
}


def speed(
    network: nn.Module, *, batch: int, rounds: int, size: int, device: str, compiled: bool = False
) -> float:
    """Images per second of forward and backward, in the best of `rounds`."""
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    call = torch.compile(network) if compiled else network
    images = torch.rand(batch, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 10

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            logits = call(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        network.zero_grad()

    def seconds() -> float:
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):
        seconds()
    return batch / min(seconds() for _ in range(rounds))


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = sys.stdout
    out.write("| network | parameters (k) | MFLOP a pass | images/s | N-FGSM s per 50 k epoch |\n")
    out.write("|---|---:|---:|---:|---:|\n")
    for name in options.only or NETWORKS:
        architecture, arguments = NETWORKS[name]
        network = build(architecture, classes=10, **arguments)
        cost = flops(network, (3, options.size, options.size)) / 1e6
        rate = speed(
            network,
            batch=options.batch,
            rounds=options.rounds,
            size=options.size,
            device=options.device,
            compiled=options.compile,
        )
        count = parameters(network) / 1e3
        epoch = 2 * 50_000 / rate
        out.write(f"| {name} | {count:.0f} | {cost:.1f} | {rate:.0f} | {epoch:.0f} |\n")
        out.flush()


if __name__ == "__main__":
    main()
