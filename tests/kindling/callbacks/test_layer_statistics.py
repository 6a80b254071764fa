"""Statistics of layers."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import nn

from datamodules import ToyDataModule
from kindling.callbacks import LayerStatistics
from lit_models import LitMLP, LitTextClassifier
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyTexts
from tests.helpers.trainers import quiet_trainer


def _watch(model: LitMLP, **options: Any) -> LayerStatistics:
    statistics = LayerStatistics()
    trainer = quiet_trainer(callbacks=[statistics], max_steps=1, **options)
    trainer.fit(model, ToyDataModule("wine", batch_size=200))
    assert not any(module._forward_hooks for module in model.modules())
    return statistics


def test_statistics_are_those_of_outputs_and_gradients() -> None:
    torch.manual_seed(0)
    model = LitMLP(13, [8], num_outputs=3, lr=0.0)
    latest = _watch(model, gradient_clip_val=1e-9).latest
    data = ToyDataModule("wine")
    x, y = data.splits["train"].samples[data.splits["train"].indices]
    layer: Any = model.net.layers[1]  # type: ignore[index]  # torch's __getattr__
    hidden = layer(model.normalize(x))
    loss = model.task.loss(model(x), y)
    model.zero_grad()
    loss.backward()
    assert latest.keys() == {"net.layers.1", "net.layers.2", "net.layers.3"}
    assert latest["net.layers.1"]["mean"] == pytest.approx(hidden.mean().item(), rel=1e-4)
    assert latest["net.layers.1"]["std"] == pytest.approx(hidden.std().item(), rel=1e-4)
    assert latest["net.layers.2"]["zeros"] == pytest.approx((hidden <= 0).float().mean().item())
    assert "gradient" not in latest["net.layers.2"]
    expected = torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).norm().item()
    assert latest["net.layers.1"]["gradient"] == pytest.approx(expected, rel=1e-4)  # before it was clipped


@pytest.mark.parametrize("optimizer", ["AdamW", "NAdam"])  # the first is fused
def test_gradients_are_not_those_that_a_scaler_has_scaled(optimizer: Any) -> None:  # noqa: ANN401  # a name
    def gradient(**options: Any) -> float:
        torch.manual_seed(0)
        latest = _watch(LitMLP(13, [8], num_outputs=3, optimizer=optimizer), **options).latest
        return latest["net.layers.1"]["gradient"]

    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert gradient(plugins=[scaled]) == pytest.approx(gradient(), rel=0.01)


def test_where_no_step_is_logged_none_is_watched() -> None:
    assert not _watch(LitMLP(13, [8], num_outputs=3), log_every_n_steps=0).latest


def test_a_bad_start_is_seen() -> None:
    def ratio(**options: Any) -> float:
        torch.manual_seed(0)
        model = LitMLP(13, [64] * 8, num_outputs=3, **options)
        latest = _watch(model).latest
        return latest["net.layers.15"]["std"] / latest["net.layers.1"]["std"]

    assert ratio(init="normal") < 1e-6
    assert ratio(init="kaiming_normal") > 0.1


def test_only_steps_that_are_logged_are_watched() -> None:
    calls: list[int] = []

    class Counted(LayerStatistics):
        def _watch(self, name: str, layer: nn.Module, *args: Any) -> None:
            calls.append(step[0])
            super()._watch(name, layer, *args)

    step = [0]
    model = LitMLP(13, [8], num_outputs=3)
    model.on_before_zero_grad = lambda _: step.__setitem__(0, model.global_step)  # type: ignore[method-assign, assignment]
    trainer = quiet_trainer(callbacks=[Counted()], max_epochs=5, log_every_n_steps=7, limit_val_batches=0)
    trainer.fit(model, ToyDataModule("wine", batch_size=32))
    assert trainer.global_step > 14
    assert {calls.count(at) for at in set(calls)} == {3}
    assert len(set(calls)) == (trainer.global_step + 6) // 7


def test_a_recurrent_layer_is_measured_by_its_output_not_its_state() -> None:
    statistics = LayerStatistics()
    model = LitTextClassifier(encoder="lstm", vocab_size=30, num_outputs=3, width=8, embedding_dim=8)
    quiet_trainer(callbacks=[statistics], max_steps=1).fit(model, TinyTexts())
    found = {name: figures for name, figures in statistics.latest.items() if "encoder" in name}
    assert found
    assert all({"mean", "std", "zeros", "gradient"} == figures.keys() for figures in found.values())


def test_tensorboard_gets_every_statistic_of_every_layer(run: Run) -> None:
    cli = run("--callbacks+=callbacks.LayerStatistics --max_epochs 1 --log_every_n_steps 5")
    events = EventAccumulator(cli.trainer.default_root_dir)
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"layer_std/net.layers.1", "layer_zeros/net.layers.2", "layer_gradient/net.layers.3"} <= set(tags)
    steps = [event.step for event in events.Scalars("layer_std/net.layers.1")]
    assert steps == list(range(0, cli.trainer.global_step, 5))
