"""TabM: perceptrons that learn one by one, and predict together."""

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import Samples
from lit_models import LitTabM, ModelError
from lit_models.tasks import TaskName
from tests.helpers.samples import Table
from tests.helpers.trainers import quiet_trainer

SMALL: dict[str, Any] = {"k": 4, "width": 16, "num_blocks": 1, "embedding_dim": 4, "num_frequencies": 8}
TASKS: list[tuple[TaskName, int]] = [("regression", 1), ("regression", 2), ("binary", 1), ("multiclass", 3)]


def model_of(task: TaskName = "regression", num_outputs: int = 1, **options: Any) -> LitTabM:
    """Make a small model of three numbers and the codes of two categories, whose members disagree."""
    torch.manual_seed(0)
    defaults = {"in_features": 5, "cat_cardinalities": [4, 50], **SMALL}
    model = LitTabM(task=task, num_outputs=num_outputs, **{**defaults, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return model


def batch(task: TaskName, num_outputs: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """Make rows, and targets of the task."""
    generator = torch.Generator().manual_seed(1)
    codes = [torch.randint(0, codes, (size, 1), generator=generator).float() for codes in (4, 50)]
    x = torch.cat([torch.randn(size, 3, generator=generator), *codes], dim=1)
    if task == "regression":
        y = torch.randn(size, num_outputs, generator=generator) * 5 + 100
        return x, y.squeeze(1) if num_outputs == 1 else y
    return x, torch.randint(0, max(2, num_outputs), (size,), generator=generator)


@pytest.mark.parametrize(("in_features", "cardinalities"), [(3, []), (2, [4, 50]), (1, [2]), (1, []), (4, [3, 1])])
@pytest.mark.parametrize("embedding_dim", [0, 4])
def test_numbers_or_categories_alone_are_enough(in_features: int, cardinalities: list[int], embedding_dim: int) -> None:
    model = model_of(in_features=in_features, cat_cardinalities=cardinalities, embedding_dim=embedding_dim)
    x = torch.zeros(5, in_features)
    y = torch.arange(5.0)
    loss = model.training_step((x, y), 0)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(x).shape == (5, 1)
    assert model.example_input_array is not None
    assert model(model.example_input_array).shape == (2, 1)


def test_a_value_that_training_did_not_see_is_taken() -> None:
    model = model_of().eval()
    x, _ = batch("regression", 1)
    x[:, 3:] = 0
    assert model(x).isfinite().all()


@pytest.mark.parametrize("k", [1, 3])
def test_there_are_as_many_members_as_asked(k: int) -> None:
    model = model_of("binary", 1, k=k)
    x, y = batch("binary", 1)
    assert model.net(x).shape == (6, k, 1)
    assert model.training_step((x, y), 0).isfinite()


def test_it_learns_in_the_target_s_own_unit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator)
    y = 1000 + 50 * x[:, 0] - 20 * x[:, 1].abs()
    data = Table(Samples(x, y), task="regression", batch_size=32)
    model = LitTabM(2, task="regression", num_outputs=1, lr=0.01, **SMALL)
    trainer = quiet_trainer(max_epochs=15)
    trainer.fit(model, data)
    [found] = trainer.test(model, data, verbose=False)
    samples, indices = data.splits["test"]
    x, y = samples[indices]
    with torch.no_grad():
        errors = (model.eval().predict_step(x, 0) - y).abs()
    assert found["test_mae"] == pytest.approx(errors.mean().item(), rel=1e-4)
    assert found["test_mae"] < 0.5 * y.std()


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"num_blocks": 0},
        {"width": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"lr": -1.0},
        {"weight_decay": -1.0},
        {"embedding_dim": -1},
        {"num_frequencies": 0},
        {"frequency_scale": 0.0},
        {"frequency_scale": -1.0},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ModelError, match=rf"^{name}={options[name]}: "):
        LitTabM(**{**SMALL, **options})


def test_a_bad_loss_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^loss='MSELoss': "):
        LitTabM(task="binary", num_outputs=1, loss="MSELoss")
