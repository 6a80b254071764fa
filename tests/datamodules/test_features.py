"""Augmentation, and features of a frozen network in the place of inputs."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import DataModule, Samples, ToyDataModule
from datamodules.base import Balance
from lit_models import LitMLP
from tests.helpers.samples import Table
from tests.helpers.trainers import quiet_trainer

Batch = tuple[Tensor, Tensor]


class _Marked(ToyDataModule):
    """Iris, in which augmenting can be seen."""

    def augment(self, x: Tensor) -> Tensor:
        """Make every number large."""
        return x + 1000


class _Look(Callback):
    """Notes the smallest number of the batches of each stage."""

    def __init__(self) -> None:
        self.smallest: dict[str, float] = {}

    def _note(self, stage: str, batch: Batch) -> None:
        self.smallest[stage] = min(self.smallest.get(stage, float("inf")), batch[0].min().item())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *_: Any) -> None:
        """Look at a training batch."""
        self._note("train", batch)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *_: Any) -> None:
        """Look at a validation batch."""
        self._note("val", batch)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *_: Any) -> None:
        """Look at a test batch."""
        self._note("test", batch)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *_: Any) -> None:
        """Look at a batch to predict."""
        self._note("predict", batch)


def test_only_training_batches_are_augmented() -> None:
    look, model, data = _Look(), LitMLP(4, [4], num_outputs=3), _Marked("iris")
    trainer = quiet_trainer(callbacks=[look])
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    trainer.predict(model, data, return_predictions=False)
    assert look.smallest.pop("train") > 1000
    assert look.smallest.keys() == {"val", "test", "predict"}
    assert max(look.smallest.values()) < 10


class _Shaken(ToyDataModule):
    """Iris, with a random number added to each row in training."""

    augments = True

    def augment(self, x: Tensor) -> Tensor:
        """Add noise."""
        return x + torch.rand_like(x)


CPU = torch.device("cpu")


def _doubled(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_features_take_the_place_of_inputs_until_the_fit_ends(num_workers: int) -> None:
    data = ToyDataModule("iris", batch_size=7, num_workers=num_workers)
    plain = [list(data.train_dataloader()), list(data.val_dataloader()[0]), list(data.test_dataloader()[0])]
    data.precompute(_doubled, 3, CPU)
    found = [list(data.train_dataloader()), list(data.val_dataloader()[0]), list(data.test_dataloader()[0])]
    for before, after in zip(plain[:2], found[:2], strict=True):
        torch.testing.assert_close(after, [[_doubled(x), y] for x, y in before], rtol=0, atol=0)
    torch.testing.assert_close(found[2], plain[2], rtol=0, atol=0)  # a test is done on what there is
    data.teardown("fit")
    torch.testing.assert_close(list(data.train_dataloader()), plain[0], rtol=0, atol=0)


def test_views_are_draws_of_augmenting() -> None:
    data = _Shaken("iris", batch_size=7)
    samples, indices = data.splits["train"]
    seen: list[int] = []

    def extract(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x

    state = torch.get_rng_state()
    data.precompute(extract, 2, CPU)
    assert torch.get_rng_state().equal(state)  # nothing is taken from the run's own numbers
    assert sum(seen) == 2 * len(indices) + data.splits["val"].size
    features, order = data._features["train"]
    assert order.equal(torch.arange(len(indices)))
    assert features.y.equal(samples.y[indices].repeat(2))
    views = features.x.view(2, len(indices), 4) - samples.x[indices]
    assert ((views >= -1e-6) & (views <= 1 + 1e-6)).all()
    assert (views[0] - views[1]).abs().mean() > 0.2
    held_out, places = data.splits["val"]
    assert data._features["val"].samples.x.equal(held_out.x[places])  # not augmented

    torch.manual_seed(99)
    again = _Shaken("iris", batch_size=7)
    again.precompute(extract, 2, CPU)
    assert again._features["train"].samples.x.equal(features.x)
    other = _Shaken("iris", batch_size=7, seed=1)
    other.precompute(extract, 2, CPU)
    assert not other._features["train"].samples.x.equal(features.x)


def test_one_view_is_enough_where_nothing_is_random() -> None:
    data = ToyDataModule("iris")
    data.precompute(_doubled, 5, CPU)
    assert len(data._features["train"].samples) == data.splits["train"].size


@pytest.mark.parametrize("balance", ["downsample", "weights"])
def test_features_are_balanced_as_inputs_are(pool: Samples, balance: Balance) -> None:
    data = Table(pool, balance=balance, batch_size=16)
    before = [y.tolist() for _, y in data.train_dataloader()]
    data.precompute(_doubled, 2, CPU)
    assert [y.tolist() for _, y in data.train_dataloader()] == before


def test_features_of_several_targets_keep_them(pool: Samples) -> None:
    y = torch.randn(200, 2)
    data = Table(Samples(pool.x, y), task="regression", val_fraction=0)
    data.precompute(_doubled, 2, CPU)
    x, targets = next(iter(data.train_dataloader()))
    assert targets.equal(y[x[:, 0].long()])
    assert data.val_dataloader() == []


def test_the_next_stage_forgets_what_a_broken_fit_left() -> None:
    look, data = _Look(), ToyDataModule("iris")
    data.precompute(lambda x: x + 5000, 1, CPU)
    quiet_trainer(callbacks=[look]).validate(LitMLP(4, [4], num_outputs=3), data, verbose=False)
    assert look.smallest["val"] < 10


def test_features_are_not_augmented_again() -> None:
    look, data, model = _Look(), _Marked("iris"), LitMLP(4, [4], num_outputs=3)
    model.on_fit_start = lambda: data.precompute(lambda x: x, 1, CPU)  # type: ignore[method-assign]
    quiet_trainer(callbacks=[look]).fit(model, data)
    assert 1000 < look.smallest["train"] < 1100
    assert look.smallest["val"] < 10


@pytest.mark.parametrize("computes", [False, True])
def test_overfitted_batches_are_not_augmented(computes: bool) -> None:
    look, data, model = _Look(), _Marked("iris"), LitMLP(4, [4], num_outputs=3)
    if computes:
        model.on_fit_start = lambda: data.precompute(lambda x: x, 1, CPU)  # type: ignore[method-assign]
    quiet_trainer(callbacks=[look], overfit_batches=1).fit(model, data)
    assert look.smallest["train"] < 10
    assert look.smallest["val"] < 10


def _epoch(data: DataModule, epoch: int = 0) -> list[list[Tensor]]:
    data._position = epoch, 0
    return list(data.train_dataloader())


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 1}, {"num_folds": 2}, {"val_fraction": 0.7}, {"balance": "weights"}, {"balance": "downsample"}],
)
def test_what_annotates_samples_comes_with_them_until_the_fit_ends(options: dict[str, Any], pool: Samples) -> None:
    data = Table(pool, batch_size=7, **options)
    plain = [_epoch(data, epoch) for epoch in range(4)]
    data.annotate(lambda x: x.sum(1, keepdim=True), CPU)
    for epoch, batches in enumerate(plain):  # of the same samples, where they are few of all
        torch.testing.assert_close(_epoch(data, epoch), [[x, y, x.sum(1, keepdim=True)] for x, y in batches])
    assert len(next(iter(data.test_dataloader()[0]))) == 2
    data.teardown("fit")
    torch.testing.assert_close(_epoch(data), plain[0], rtol=0, atol=0)


def test_what_training_makes_of_inputs_without_a_draw_is_annotated_and_seen() -> None:
    data, seen = _Marked("iris"), []

    class Look(LitMLP):
        def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's type
            data.annotate(lambda x: x, self.device)
            return super().configure_optimizers()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401  # of three parts
            seen.append(batch)
            return super().training_step(batch[:2], batch_idx)

    quiet_trainer().fit(Look(4, [4], num_outputs=3), data)
    assert seen
    assert all(x.equal(known) and 1000 < x.min() < 1100 for x, _, known in seen)


def test_what_is_augmented_is_not_annotated() -> None:
    data = _Shaken("iris", batch_size=7)
    data.annotate(lambda x: x, CPU)
    assert len(next(iter(data.train_dataloader()))) == 2


def test_fitting_without_a_validation_split_validates_nothing() -> None:
    look = _Look()
    trainer = quiet_trainer(callbacks=[look])
    trainer.fit(LitMLP(4, [4], num_outputs=3), ToyDataModule("iris", val_fraction=0))
    assert look.smallest.keys() == {"train"}
    assert not trainer.enable_validation
