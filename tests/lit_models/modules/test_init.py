"""Initial schemes: what each layer begins as, and what that does to a signal on its way."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from datamodules import DigitsDataModule
from lit_models import LitGPT, LitLeNet, LitMLP, LitModule, LitSiamese, ModelError
from lit_models.modules.init import InitName, Nonlinearity, initialize_weights
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

SCALED: list[InitName] = ["kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"]


def _begin(module: nn.Module, scheme: InitName, nonlinearity: Nonlinearity | None = None) -> nn.Module:
    torch.manual_seed(0)
    initialize_weights(module, scheme, nonlinearity)
    return module


def _expected_std(scheme: str, fan_in: int, fan_out: int, gain: float) -> float:
    if scheme.startswith("kaiming"):
        return gain / math.sqrt(fan_in)
    return gain * math.sqrt(2 / (fan_in + fan_out))


@pytest.mark.parametrize("scheme", SCALED)
@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        (nn.ReLU(), math.sqrt(2)),
        (nn.Tanh(), 5 / 3),
        (nn.Sigmoid(), 1),
        (nn.LeakyReLU(0.5), math.sqrt(2 / 1.25)),
        (nn.SELU(), 3 / 4),
        (nn.GELU(), math.sqrt(2)),
        (nn.Identity(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_has_the_spread_of_its_scheme_times_the_gain_of_what_follows(
    scheme: InitName, activation: nn.Module, gain: float
) -> None:
    net = nn.Sequential(nn.Linear(400, 300), nn.BatchNorm1d(300), activation, nn.Linear(300, 200))
    _begin(net, scheme)
    first, last = net.get_parameter("0.weight"), net.get_parameter("3.weight")
    assert first.std().item() == pytest.approx(_expected_std(scheme, 400, 300, gain), rel=0.02)
    assert last.std().item() == pytest.approx(_expected_std(scheme, 300, 200, 1), rel=0.02)
    bound = first.std().item() * math.sqrt(3)  # of a uniform distribution of this spread
    assert (first.abs().max().item() < 1.05 * bound) == scheme.endswith("uniform")
    assert not net.get_parameter("0.bias").any()


@pytest.mark.parametrize("scheme", SCALED)
def test_a_convolution_counts_its_places(scheme: InitName) -> None:
    net = _begin(nn.Sequential(nn.Conv2d(16, 32, 5), nn.MaxPool2d(2), nn.ReLU()), scheme)
    expected = _expected_std(scheme, 16 * 25, 32 * 25, math.sqrt(2))
    assert next(net.parameters()).std().item() == pytest.approx(expected, rel=0.02)


def test_what_follows_a_recurrent_layer_does_not_follow_the_one_before() -> None:
    net = nn.Sequential(nn.Linear(400, 300), nn.GRU(300, 8), nn.Tanh())
    _begin(net, "kaiming_normal")
    assert net.get_parameter("0.weight").std().item() == pytest.approx(1 / 20, rel=0.02)


def test_one_can_say_what_follows() -> None:
    net = _begin(nn.Sequential(nn.Linear(400, 300), nn.Sigmoid()), "kaiming_normal", "tanh")
    assert next(net.parameters()).std().item() == pytest.approx(5 / 3 / 20, rel=0.02)


def test_orthogonal_keeps_lengths_and_angles_but_for_the_gain() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    _begin(net, "orthogonal")
    weight = net.get_parameter("0.weight")
    torch.testing.assert_close(weight @ weight.T, torch.eye(64) * 25 / 9, atol=1e-5, rtol=0)


def test_normal_and_constant_look_at_no_size() -> None:
    net = nn.Sequential(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 200))
    weights = [net.get_parameter(f"{at}.weight") for at in (0, 2)]
    initialize_weights(net, "normal", std=0.5)
    assert [weight.std().item() for weight in weights] == pytest.approx([0.5, 0.5], rel=0.02)
    initialize_weights(net, "constant", value=0.25)
    assert all(weight.eq(0.25).all() for weight in weights)


@pytest.mark.parametrize("scheme", get_args(InitName))
def test_norms_begin_anew_and_embeddings_stay(scheme: InitName) -> None:
    norm, embedding = nn.LayerNorm(8), nn.Embedding(10, 8)
    shared = nn.Linear(8, 10)
    shared.weight = embedding.weight
    nn.init.constant_(norm.weight, 3)
    nn.init.constant_(norm.bias, 3)
    before = embedding.weight.detach().clone()
    _begin(nn.Sequential(embedding, norm, shared), scheme)
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    assert embedding.weight.equal(before)


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_each_gate_of_a_recurrent_layer_is_a_matrix_of_its_own(cls: type[nn.RNN | nn.GRU | nn.LSTM]) -> None:
    layer = cls(16, 32, bidirectional=True)
    _begin(layer, "orthogonal")
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            assert not parameter.any()
        elif "hh" in name:
            for gate in parameter.split(32):
                torch.testing.assert_close(gate @ gate.T, torch.eye(32), atol=1e-5, rtol=0)


def test_so_is_each_projection_of_attention() -> None:
    layer = nn.MultiheadAttention(32, 4)
    _begin(layer, "orthogonal")
    for projection in (*layer.in_proj_weight.split(32), layer.out_proj.weight):
        torch.testing.assert_close(projection @ projection.T, torch.eye(32), atol=1e-5, rtol=0)
    assert not layer.in_proj_bias.any()


def _spread(net: nn.Sequential, x: Tensor) -> float:
    with torch.no_grad():
        spread: float = net(x).std().item()
    return spread


def test_twenty_layers_of_relu_pass_a_signal_on_only_with_the_right_gain() -> None:
    def deep(activation: type[nn.Module]) -> nn.Sequential:
        return nn.Sequential(*[part for _ in range(20) for part in (nn.Linear(256, 256), activation())])

    x = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    relu = deep(nn.ReLU)
    _begin(relu, "kaiming_normal")
    spread = _spread(relu, x)
    assert 0.3 < spread < 3
    _begin(relu, "kaiming_normal", "linear")
    assert _spread(relu, x) == pytest.approx(spread * 2**-10, rel=1e-3)  # each layer loses half of the mean square
    _begin(relu, "normal")
    assert _spread(relu, x) < 1e-12


def test_a_model_begins_by_its_scheme_and_a_checkpoint_goes_on(run: Run) -> None:
    orthogonal = run("--model.init orthogonal --model.hidden [32] --max_epochs 1 --model.lr 0")
    weight = orthogonal.model.net.layers[1].weight
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32), atol=1e-4, rtol=0)  # the gain of ReLU, squared
    folder = Path(orthogonal.trainer.default_root_dir) / "checkpoints"
    loaded = LitMLP.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    assert loaded.hparams["init"] == "orthogonal"
    assert loaded.net.layers[1].weight.equal(weight)  # type: ignore[index, union-attr]  # torch's __getattr__
    resumed = run(f"--ckpt_path {folder}/last.ckpt --max_epochs 2")
    assert resumed.model.net.layers[1].weight.equal(weight)


def test_without_a_scheme_layers_stay_as_torch_made_them() -> None:
    torch.manual_seed(0)
    model = LitMLP(4, [3])
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    assert model.net.layers[1].weight.equal(plain.weight)  # type: ignore[index, union-attr]


@pytest.mark.parametrize("scheme", get_args(InitName))
@pytest.mark.parametrize("cls", [LitLeNet, LitGPT])
def test_every_scheme_suits_every_kind_of_network(cls: type[LitModule], scheme: InitName) -> None:
    model = cls(init=scheme)
    assert model(model.example_input_array).isfinite().all()


class Forgetful(LitModule):
    """A user's model that does not call `initialize`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, self.num_outputs))


def test_a_scheme_that_a_model_never_applies_is_refused() -> None:
    quiet_trainer(limit_train_batches=1).fit(Forgetful(), DigitsDataModule())
    with pytest.raises(ModelError, match=r"^init='orthogonal': Forgetful ignores it; call self\.initialize\(\)"):
        quiet_trainer(limit_train_batches=1).fit(Forgetful(init="orthogonal"), DigitsDataModule())


def test_the_scheme_applies_to_inner_models_too() -> None:
    model = LitSiamese("LitMLP", {"hidden": [4]}, in_features=4, init="constant")
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert len(weights) == 2
    assert all((weight == 0.01).all() for weight in weights)


def test_an_unknown_scheme_is_refused(mistake: Callable[[str], str]) -> None:
    assert "--model.init" in mistake("--model.init kaiming")
