"""The price of the defences beside the networks' own."""

import pytest

from tests.bench.graph_cost import measure, random_graph


@pytest.mark.slow
def test_graph_costs_little_more_than_its_passes() -> None:
    """The whole graph takes at most 1.25 times its bare forward passes at batch 32."""
    graph = random_graph()
    runs = (measure(graph, batch=32, threads=1, rounds=7)["ratio"] for _ in range(3))
    assert any(ratio <= 1.25 for ratio in runs)
