"""DP-SGD for a detector's round (Abadi et al., CCS 2016, by Opacus): bounds what it tells of a row.

Every row of the round counts, the replayed ones too: some of those were traffic once. What is not
counted: which rows were selected, and how many there are of each class. Rows are drawn by chance
alone (Poisson), their weights act on the loss, before it is clipped; none is replayed the more for
being lost. Sampling and noise come from the system's entropy, see `guard.training.private`.
"""

import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer

from guard.training.heads import Batch, Heads, losses
from guard.training.leash import Leash
from guard.training.private import Private, Spent

BATCH, RATE = 512, 5e-3


def learn_privately(
    heads: Heads,
    rows: Batch,
    leash: Leash,
    private: Private,
    *,
    steps: int,
) -> Spent:
    """Train in place; what was spent. Projecting back onto the leash costs nothing more."""
    count = len(rows.features)
    rate = min(BATCH / count, 1.0)
    entropy = torch.Generator()
    entropy.seed()
    hooked = GradSampleModule(heads)
    optimizer = DPOptimizer(
        torch.optim.AdamW(heads.parameters(), RATE, weight_decay=0),
        noise_multiplier=private.noise,
        max_grad_norm=private.clip,
        expected_batch_size=max(round(rate * count), 1),
        generator=entropy,
    )
    accountant = RDPAccountant()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        optimizer.zero_grad()
        drawn = rows[(torch.rand(count, generator=entropy) < rate).nonzero()[:, 0]]
        if len(drawn.features):
            loss = losses(hooked(drawn.features.requires_grad_()), drawn) * drawn.weight * count
            loss.mean().backward()  # type: ignore[no-untyped-call]
        else:  # the noise is added alike
            for parameter in heads.parameters():
                parameter.grad_sample = torch.zeros(0, *parameter.shape)  # type: ignore[attr-defined]
        optimizer.step()
        accountant.step(noise_multiplier=private.noise, sample_rate=rate)
        leash.pull()
    hooked.to_standard_module()
    epsilon = float(accountant.get_epsilon(private.delta)) if steps else 0.0
    return Spent(epsilon, private.delta, private.noise, private.clip, rate, steps)
