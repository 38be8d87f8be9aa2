"""Evidence on pictures that were made here, as rows: to learn from, to calibrate, to hold to."""

import torch
from torch import Tensor, nn

from guard.defenses.evidence import EvidenceGraph
from guard.defenses.upstream import COLUMN, upstream_odds
from guard.rows import Rows


@torch.no_grad()
def witness(
    graph: EvidenceGraph,
    production: nn.Module,
    images: Tensor,
    generator: torch.Generator,
    *,
    kind: str,
    suspicious: bool,
    labels: Tensor | None = None,
    batch: int = 128,
) -> Rows:
    """Rows on images (N, C, H, W), with fresh noise and the production model's answer.

    labels: the true classes (N,).
    """
    parts = [images.new_empty((0, len(graph.columns) + 1))]
    for chunk in torch.split(images, batch):
        noise = torch.randn(
            (len(chunk), graph.copies, *chunk.shape[1:]), generator=generator, dtype=chunk.dtype
        )
        evidence, probabilities = graph(chunk, noise)
        odds = upstream_odds(probabilities, production(chunk).softmax(1))
        parts.append(torch.cat([evidence, odds[:, None]], dim=-1))
    return Rows.of(
        kind,
        (*graph.columns, COLUMN),
        torch.cat(parts).numpy(),
        suspicious=suspicious,
        label=None if labels is None else labels.numpy(),
    )
