"""Weights averaged and weights pushed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from guard.training.weights import Average, pushed


def small() -> nn.Module:
    """Two layers and running statistics."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


def moved(network: nn.Module, by: float) -> None:
    """Every floating number of the network shifted."""
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(by if value.is_floating_point() else 1)


def nothing(_value: Tensor) -> None:
    """What one process does about gradients."""


@pytest.fixture
def network() -> nn.Module:
    """One that has seen a batch."""
    network = small()
    network(torch.rand(8, 3, 5, 5))
    return network


def test_the_exponential_average_is_its_formula(network: nn.Module) -> None:
    """Weights follow with 1 - min(decay, (1 + t) / (10 + t)); running statistics are copied."""
    average = Average(network, decay=0.3)
    expected = network[0].weight.detach().clone()
    for step in (1, 2, 3, 4):
        moved(network, 0.5)
        average.follow(network)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    twin = average.network
    assert torch.allclose(twin[0].weight, expected, atol=1e-6)  # type: ignore[index]
    assert torch.equal(twin[1].running_mean, network[1].running_mean)  # type: ignore[index]
    assert torch.equal(twin[1].num_batches_tracked, network[1].num_batches_tracked)  # type: ignore[index]


def test_the_stochastic_average_is_a_plain_mean(network: nn.Module) -> None:
    """From its share of the way on, the mean of the epochs' weights, statistics too."""
    average = Average(network, decay=0.9, swa=0.5)
    seen = []
    for epoch in (1, 2, 3, 4, 5):
        moved(network, float(epoch))
        average.follow(network)
        average.close_epoch(network, epoch / 5)
        if epoch / 5 > 0.5:
            seen.append({k: v.clone() for k, v in network.state_dict().items()})
    for name in ("0.weight", "1.running_var"):
        mean = torch.stack([one[name] for one in seen]).mean(0)
        assert torch.allclose(average.network.state_dict()[name], mean, atol=1e-5)


def test_awp_pushes_each_layer_by_its_share_and_takes_it_back(network: nn.Module) -> None:
    """Inside, every matrix stands gamma times its length up the slope; after, where it was."""
    images, before = torch.rand(8, 3, 5, 5), copy.deepcopy(network.state_dict())
    labels = torch.randint(2, (8,))

    def loss() -> Tensor:
        return nn.functional.cross_entropy(network(images), labels)

    lower = float(loss().detach())
    with pushed(network, loss, gamma=0.05, reduce=nothing):
        for name in ("0.weight", "3.weight"):
            push = network.get_parameter(name) - before[name]
            assert torch.allclose(push.norm(), 0.05 * before[name].norm(), rtol=1e-4)
        assert torch.equal(network.get_parameter("0.bias"), before["0.bias"])
        assert float(loss().detach()) > lower
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_awp_leaves_no_trace_of_a_loss_that_is_no_number(network: nn.Module) -> None:
    """A slope of NaN and an error inside both end with the weights as they were."""
    before = copy.deepcopy(network.state_dict())
    images = torch.full((2, 3, 5, 5), torch.nan)
    push = pushed(network, lambda: network(images).sum(), gamma=0.05, reduce=nothing)
    with pytest.raises(ZeroDivisionError), push:
        raise ZeroDivisionError
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
