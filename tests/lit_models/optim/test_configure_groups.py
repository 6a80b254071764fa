"""Parameter groups: how each weight learns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules import Samples
from lit_models import LitConvNet, LitGPT, LitMLP, LitModule, LitTextClassifier
from lit_models.optim.configure import depths
from lit_models.optim.factory import CompositeOptimizer, make_optimizer
from tests.helpers.trainers import quiet_trainer


def _groups(model: LitModule) -> dict[str, dict[str, Any]]:
    """The group of each weight, by its name."""
    made = make_optimizer(model.optimization["optimizer"], model.param_groups())
    return {name: group for group in made.param_groups for name in group["param_names"]}


def test_vectors_do_not_decay() -> None:
    model = LitConvNet(channels=[4], weight_decay=0.1)
    found = _groups(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        assert found[name]["weight_decay"] == (0.1 if weight.ndim > 1 else 0)


def test_groups_that_are_trained_alike_are_one() -> None:
    for options, count in (({}, 1), ({"weight_decay": 0.1}, 2), ({"weight_decay": 0.1, "optimizer": "Rprop"}, 1)):
        model = LitMLP(4, [3, 2], **options)
        made = make_optimizer(model.optimization["optimizer"], model.param_groups())
        assert len(made.param_groups) == count
        if count == 1:  # in the order of the network
            assert [id(p) for p in made.param_groups[0]["params"]] == [id(p) for p in model.parameters()]


def test_an_optimizer_with_a_decay_of_its_own_does_not_apply_it_to_vectors() -> None:
    model = LitMLP(4, [3])
    model.optimizer_config = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}}  # it has 0.01
    decays = {name.rpartition(".")[2]: group["weight_decay"] for name, group in _groups(model).items()}
    assert decays == {"weight": 0.01, "bias": 0}


class Net(nn.Module):
    """A vector before any matrix, a norm between two layers, and a head that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.recurrent = nn.GRU(4, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Not needed."""
        return x


def test_depths_are_counted_from_the_output() -> None:
    found = depths(Net())
    assert {name for name, depth in found.items() if depth == 1} == {
        *("scale", "embedding.weight", "norm.weight", "norm.bias")
    }
    # A tied head is no layer of its own; its bias goes with the layer before.
    assert {name.partition(".")[0] for name, depth in found.items() if depth == 0} == {"recurrent", "head"}


def test_each_layer_learns_at_a_share_of_the_next_ones_rate() -> None:
    model = LitMLP(4, [3, 3], lr=0.1, layer_decay=0.5, batch_norm=True)
    rates = {name: group["lr"] for name, group in _groups(model).items()}
    assert list(rates.values()) == pytest.approx([0.025] * 3 + [0.05] * 3 + [0.1] * 2)


def test_layer_decay_is_what_groups_of_torch_do() -> None:
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    torch.manual_seed(0)
    model = LitMLP(4, [5, 5], num_outputs=3, optimizer="SGD", momentum=0.0, lr=0.1, layer_decay=0.1, normalize=False)
    torch.manual_seed(0)
    other = LitMLP(4, [5, 5], num_outputs=3, normalize=False)
    linears = [part for part in other.modules() if isinstance(part, nn.Linear)]
    plain = torch.optim.SGD(
        [{"params": part.parameters(), "lr": lr} for part, lr in zip(linears, (0.001, 0.01, 0.1), strict=True)]
    )
    quiet_trainer(max_epochs=3).fit(model, DataLoader(Samples(x, y), batch_size=None, sampler=[torch.arange(8)]))
    for _ in range(3):
        plain.zero_grad()
        other.task.loss(other(x), y).backward()
        plain.step()
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def _owners(model: LitModule) -> dict[str, set[str]]:
    made = make_optimizer(model.optimization["optimizer"], model.param_groups())
    assert isinstance(made, CompositeOptimizer)
    return {
        type(part).__name__: {name for group in part.param_groups for name in group["param_names"]}
        for part in made.optimizers
    }


def test_muon_takes_the_matrices_that_are_no_embeddings() -> None:
    owners = _owners(LitMLP(4, [3], optimizer="Muon"))
    assert owners["Muon"] == {"net.layers.1.weight", "net.layers.3.weight"}
    assert owners["AdamW"] == {"net.layers.1.bias", "net.layers.3.bias"}
    text = LitTextClassifier(encoder="transformer", optimizer="Muon")
    owners = _owners(text)
    assert {"net.embedding.weight", "net.encoder.positions"} < owners["AdamW"]
    assert {name for name, p in text.named_parameters() if p.ndim == 2} - owners["AdamW"] == owners["Muon"]
    assert "net.embedding.weight" in _owners(LitGPT(optimizer="Muon"))["AdamW"]
    assert _owners(LitConvNet(channels=[4], optimizer="Muon"))["Muon"] == {
        name for name, p in LitConvNet(channels=[4]).named_parameters() if p.ndim == 2
    }


@pytest.mark.parametrize("optimizer", ["SparseAdam", "AdamW", "Muon", "SGD"])
def test_sparse_embeddings_are_sparse_adams(optimizer: Any) -> None:  # noqa: ANN401  # a name
    owners = _owners(LitTextClassifier(sparse=True, optimizer=optimizer))
    assert owners["SparseAdam"] == {"net.embedding.weight"}
    assert owners["AdamW" if optimizer == "SparseAdam" else optimizer] >= {"net.head.1.weight"}
