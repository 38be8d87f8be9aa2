"""The memory of queries against a plain one that forgets nothing and compares everything."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.traffic.features import HASHES, Seen
from guard.traffic.memory import Memory, Reach

D = 16
REACH = Reach(0.5, 0.3)


def seen(random: np.random.Generator, count: int, spread: float = 0.3) -> Seen:
    """Features drawn at random, near enough that some are within reach."""
    hashes = random.integers(1, 1 << 62, (count, HASHES)).astype(np.uint64)
    pooled, stretched = (spread * random.standard_normal((2, count, D))).astype(np.float32)
    return Seen(hashes[:, 0].copy(), hashes, pooled, stretched)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60), st.integers(0, 70))
def test_it_finds_what_comparing_all_finds(seed: int, capacity: int, count: int) -> None:
    """Whatever was remembered, and however often the ring went round."""
    random = np.random.default_rng(seed)
    memory = Memory(D, REACH, capacity=capacity, seconds=100.0)
    past, new = seen(random, count), seen(random, 1)
    for row in range(count):
        memory.add(past, row, sequence=row, now=float(row))
    places, again = memory.near(new, 0)
    alive = range(max(0, count - capacity), count)
    expected = {
        row
        for row in alive
        if np.linalg.norm(past.pooled[row] - new.pooled[0]) < REACH.pooled - 1e-3
        or np.linalg.norm(past.stretched[row] - new.stretched[0]) < REACH.stretched - 1e-3
    }
    allowed = {
        row
        for row in alive
        if np.linalg.norm(past.pooled[row] - new.pooled[0]) < REACH.pooled + 1e-3
        or np.linalg.norm(past.stretched[row] - new.stretched[0]) < REACH.stretched + 1e-3
    }
    assert expected <= {*memory.sequence[places].tolist()} <= allowed
    assert not again
    assert len(memory) == min(count, capacity)


def test_a_shared_fingerprint_is_found_and_half_of_it_is_enough() -> None:
    """Eight of sixteen hashes make a repetition, seven do not; far embeddings do not matter."""
    random = np.random.default_rng(0)
    memory = Memory(D, Reach(1e-3, 1e-3), capacity=100, seconds=100.0)
    past, new = seen(random, 1), seen(random, 2)
    memory.add(past, 0, sequence=7, now=0.0)
    new.prints[0, :8], new.prints[1, :7] = past.prints[0, :8], past.prints[0, :7]
    assert memory.sequence[memory.near(new, 0)[0]].tolist() == [7]
    assert not len(memory.near(new, 1)[0])


def test_what_is_too_old_is_forgotten() -> None:
    """Neither embeddings nor hashes of an expired query are found."""
    random = np.random.default_rng(0)
    memory = Memory(D, REACH, capacity=100, seconds=10.0)
    past = seen(random, 2)
    memory.add(past, 0, sequence=1, now=0.0)
    memory.add(past, 1, sequence=2, now=8.0)
    memory.forget(11.0)
    assert not len(memory.near(past, 0)[0])
    assert memory.near(past, 1)[1]
    assert len(memory) == 1


def test_memory_is_flat_and_small() -> None:
    """Under 512 bytes a query at a hundred thousand, made once and never grown."""
    memory = Memory(48, REACH, capacity=100_000, seconds=100.0)
    before = memory.bytes
    random = np.random.default_rng(0)
    some = Seen(*(np.repeat(part, 3, 1) if part.ndim == 2 and part.shape[1] == D else part
                  for part in seen(random, 100)))  # fmt: skip
    for row in range(100):
        memory.add(some, row, sequence=row, now=0.0)
    assert memory.bytes == before <= 512 * 100_000
