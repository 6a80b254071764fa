"""What every data module shares."""

import io
import random
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import BatchSampler, DataError, DataModule, DigitsDataModule, Samples, ToyDataModule
from datamodules.base import Balance
from datamodules.statistics import image_moments, moments
from lit_models import LitMLP
from tests.helpers.tiny import Table
from tests.helpers.trainers import quiet_trainer


@pytest.fixture
def pool() -> Samples:
    """Two hundred rows of three columns, each row recognizable by its first; three classes, 20, 60 and 120 of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    x[:, 0] = torch.arange(200.0)
    y = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2, 2]).repeat(20)[torch.randperm(200, generator=generator)]
    return Samples(x, y)


@pytest.fixture
def official() -> Samples:
    """An official test split of 30 rows."""
    return Samples(torch.randn(30, 3), torch.arange(30) % 3)


def _batches(sampler: BatchSampler) -> list[list[int]]:
    return [batch.tolist() for batch in sampler]


def _flat(sampler: BatchSampler) -> list[int]:
    return [index for batch in sampler for index in batch.tolist()]


def _rows(batches: Iterable[tuple[Tensor, Tensor]]) -> list[list[float]]:
    return [x[:, 0].tolist() for x, _ in batches]


# BatchSampler


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once_in_an_epoch(shuffle: bool) -> None:
    indices = torch.arange(50, 153)
    sampler = BatchSampler(indices, 10, shuffle)
    assert sorted(_flat(sampler)) == indices.tolist()
    assert (_flat(sampler) == indices.tolist()) is not shuffle


def test_the_order_is_that_of_seed_and_epoch() -> None:
    orders = {}
    for seed in (0, 10):
        sampler = BatchSampler(torch.arange(100), 10, shuffle=True, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(_flat(sampler))
            assert tuple(_flat(sampler)) == orders[seed, epoch]
    assert len(set(orders.values())) == 6
    torch.manual_seed(99)
    again = BatchSampler(torch.arange(100), 10, shuffle=True, seed=10)
    again.set_epoch(2)
    assert tuple(_flat(again)) == orders[10, 2]


@pytest.mark.parametrize("start", [0, 1, 4, 10, 11])
def test_a_start_skips_the_first_batches_once(start: int) -> None:
    sampler = BatchSampler(torch.arange(103), 10, shuffle=True)
    whole = _batches(sampler)
    sampler.start = start
    assert _batches(sampler) == whole[start:]
    assert _batches(sampler) == whole


@pytest.mark.parametrize(
    ("size", "batch_size", "sizes"),
    [
        (9, 4, [4, 5]),  # a lone last sample joins the batch before it
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (1, 4, [1]),  # there is nothing to join
        (5, 2, [2, 2, 1]),  # would make a batch half as large again
        (3, 1, [1, 1, 1]),
        (4, 3, [4]),
    ],
)
def test_batches_have_the_asked_size(size: int, batch_size: int, sizes: list[int]) -> None:
    sampler = BatchSampler(torch.arange(size), batch_size)
    assert [len(batch) for batch in _batches(sampler)] == sizes


def test_the_length_is_the_number_of_batches() -> None:
    draw = random.Random(0)
    pairs = [(size, batch) for size in range(1, 30) for batch in range(1, 12)]
    pairs += [(draw.randint(1, 3000), draw.randint(1, 300)) for _ in range(200)]
    for size, batch_size in pairs:
        sampler = BatchSampler(torch.arange(size), batch_size, shuffle=True)
        batches = _batches(sampler)
        assert len(batches) == len(sampler), (size, batch_size)
        assert sorted(index for batch in batches for index in batch) == list(range(size)), (size, batch_size)


def _ranks(monkeypatch: pytest.MonkeyPatch, world_size: int, **options: Any) -> list[BatchSampler]:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
    samplers = []
    for rank in range(world_size):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        samplers.append(BatchSampler(**options))
    return samplers


@pytest.mark.parametrize(("size", "world_size"), [(103, 4), (100, 4), (33, 2), (3, 4), (1, 3)])
def test_ranks_share_all_samples_in_as_many_batches_each(
    monkeypatch: pytest.MonkeyPatch, size: int, world_size: int
) -> None:
    samplers = _ranks(monkeypatch, world_size, indices=torch.arange(size), batch_size=8, shuffle=True)
    batches = [_batches(sampler) for sampler in samplers]
    assert {len(shared) for shared in batches} == {len(samplers[0])}
    for together in zip(*batches, strict=True):
        assert len({len(batch) for batch in together}) == 1
    seen = [index for shared in batches for batch in shared for index in batch]
    assert set(seen) == set(range(size))
    assert len(seen) == -(-size // world_size) * world_size  # rounded up by repeating a few


def test_weights_draw_the_classes_equally_often() -> None:
    labels = (torch.arange(2000) % 10 == 0).long()  # 1 in 10
    weights = torch.where(labels == 1, 1 / 200, 1 / 1800).double()
    sampler = BatchSampler(torch.arange(2000), 64, shuffle=True, weights=weights)
    first = _flat(sampler)
    assert len(first) == 2000
    assert labels[first].sum().item() == pytest.approx(1000, abs=100)  # more than four standard deviations
    assert _flat(sampler) == first
    sampler.set_epoch(1)
    assert _flat(sampler) != first


# Splits


def test_an_official_test_split_stays_whole(pool: Samples, official: Samples) -> None:
    splits = Table(pool, official, test_fraction=0.5, val_fraction=0.25).splits
    assert splits["test"].samples is official
    assert splits["test"].indices.tolist() == list(range(30))
    assert [len(splits["train"].indices), len(splits["val"].indices)] == [150, 50]
    assert splits["val"].samples is pool
    assert pool.y[splits["val"].indices].bincount().tolist() == [5, 15, 30]


def test_without_one_the_test_is_held_out_first(pool: Samples) -> None:
    splits = Table(pool, test_fraction=0.2, val_fraction=0.1).splits
    assert {stage: len(split.indices) for stage, split in splits.items()} == {"train": 144, "val": 16, "test": 40}
    everything = torch.cat([split.indices for split in splits.values()])
    assert everything.sort().values.tolist() == list(range(200))


def test_the_seed_decides_the_splits(pool: Samples) -> None:
    first, again, other = (Table(pool, seed=seed).splits for seed in (1, 1, 2))
    for stage, split in first.items():
        assert split.indices.equal(again[stage].indices)
        assert not split.indices.equal(other[stage].indices)


@pytest.mark.parametrize("has_official", [True, False])
def test_every_fold_is_held_out_once(pool: Samples, official: Samples, has_official: bool) -> None:
    held_out = []
    for fold in range(5):
        splits = Table(pool, official if has_official else None, num_folds=5, fold=fold, val_fraction=0.25).splits
        fold_indices = splits["val" if has_official else "test"].indices
        train = splits["train"].indices
        assert pool.y[fold_indices].bincount().tolist() == [4, 12, 24]
        assert not torch.isin(fold_indices, train).any()
        assert len(train) == (160 if has_official else 120)
        if has_official:
            assert splits["test"].samples is official
        else:
            assert len(splits["val"].indices) == 40
            assert not torch.isin(splits["val"].indices, torch.cat([train, fold_indices])).any()
        held_out.append(fold_indices)
    assert torch.cat(held_out).sort().values.tolist() == list(range(200))


def test_downsampling_balances_the_training_split_only(pool: Samples) -> None:
    plain, balanced = Table(pool).splits, Table(pool, balance="downsample").splits
    counts = pool.y[balanced["train"].indices].bincount()
    assert counts.tolist() == [pool.y[plain["train"].indices].bincount().min()] * 3
    assert balanced["val"].indices.equal(plain["val"].indices)
    assert balanced["test"].indices.equal(plain["test"].indices)


def test_weights_balance_the_training_batches_only() -> None:
    y = (torch.arange(3000) % 10 == 0).long()
    data = Table(Samples(torch.arange(3000.0).view(-1, 1), y), task="binary", balance="weights")
    drawn = torch.cat([labels for _, labels in data.train_dataloader()])
    assert len(drawn) == len(data.splits["train"].indices)
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.05)
    for split, loader in ((data.splits["val"], data.val_dataloader()), (data.splits["test"], data.test_dataloader())):
        assert torch.cat([x for x, _ in loader[0]])[:, 0].tolist() == split.indices.tolist()


@pytest.mark.parametrize("balance", ["downsample", "weights"])
def test_values_cannot_be_balanced(pool: Samples, balance: Balance) -> None:
    data = Table(Samples(pool.x, pool.y.float()), task="regression", balance=balance)
    with pytest.raises(DataError, match=f"--data.balance {balance}"):
        _ = data.splits


@pytest.mark.parametrize(
    "options",
    [
        {"val_fraction": 1.0},
        {"test_fraction": -0.1},
        {"batch_size": 0},
        {"num_folds": 1},
        {"num_folds": 3, "fold": 3},
        {"num_folds": 3, "fold": -1},
    ],
)
def test_impossible_options_are_refused(pool: Samples, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"--data\."):
        Table(pool, **options)


def test_too_little_to_learn_from_is_refused(pool: Samples) -> None:
    two = Samples(pool.x[:2], pool.y[:2])
    with pytest.raises(DataError, match="left to train on"):
        _ = Table(two, test_fraction=0.9, val_fraction=0.9).splits
    with pytest.raises(DataError, match="only 2 samples"):
        _ = Table(two, num_folds=3).splits


# Statistics


def test_statistics_of_a_table_are_those_of_its_training_split_alone(pool: Samples) -> None:
    data = Table(pool)
    x = pool.x[data.splits["train"].indices].double()
    torch.testing.assert_close(data.statistics["mean"], x.mean(0).float())
    torch.testing.assert_close(data.statistics["std"], x.std(0, correction=0).float())
    outside = torch.ones(200, dtype=torch.bool)
    outside[data.splits["train"].indices] = False
    spoilt = pool.x.clone()
    spoilt[outside] = 1e9
    again = Table(Samples(spoilt, pool.y))
    torch.testing.assert_close(again.statistics, data.statistics, rtol=0, atol=0)
    assert data.statistics.keys() == {"mean", "std"}


@pytest.mark.parametrize("shape", [(), (2,)])
def test_statistics_of_a_regression_have_its_target_too(pool: Samples, shape: tuple[int, ...]) -> None:
    y = torch.randn(200, *shape) * 5 + 100
    data = Table(Samples(pool.x, y), task="regression")
    train = y[data.splits["train"].indices].double()
    torch.testing.assert_close(data.statistics["target_mean"], train.mean(0).float())
    torch.testing.assert_close(data.statistics["target_std"], train.std(0, correction=0).float())
    assert data.statistics["target_mean"].shape == shape


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_of_images_are_those_of_their_channels_in_units_of_1(channels: int) -> None:
    x = torch.randint(0, 256, (500, channels, 7, 5), dtype=torch.uint8)
    x[:, 0] //= 3
    data = Table(Samples(x, torch.arange(500) % 3))
    train = x[data.splits["train"].indices].double() / 255
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(data.statistics["mean"], mean[0].float())
    torch.testing.assert_close(data.statistics["std"], std[0].float())
    assert data.statistics["std"].shape == (channels, 1, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, -3.3333])
def test_what_does_not_vary_has_a_deviation_of_1(value: float) -> None:
    x = torch.stack([torch.full((1000,), value), torch.arange(1000.0)], 1)
    mean, std = moments(x)
    torch.testing.assert_close(mean[0], torch.tensor(value))
    assert std[0] == 1
    assert std[1] > 100


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_nor_does_a_channel_that_does_not_vary(value: int) -> None:
    mean, std = image_moments(torch.full((10, 1, 28, 28), value, dtype=torch.uint8))
    assert mean.item() == pytest.approx(value / 255)
    assert std.item() == 1


# Loaders and the position in the epoch


def test_a_split_that_is_empty_has_no_loader(pool: Samples) -> None:
    data = Table(pool, val_fraction=0, test_fraction=0)
    assert data.splits.keys() == {"train"}
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []
    predicted = torch.cat([x for x, _ in data.predict_dataloader()[0]])
    assert predicted[:, 0].tolist() == list(range(200))


def test_what_is_predicted_is_the_test_split_in_its_order(pool: Samples, official: Samples) -> None:
    x = torch.cat([x for x, _ in Table(pool, official, batch_size=7).predict_dataloader()[0]])
    assert x.equal(official.x)


def test_evaluation_batches_are_four_times_as_large(pool: Samples) -> None:
    data = Table(pool, test_fraction=0.5, batch_size=10)
    assert {len(y) for _, y in data.train_dataloader()} == {10}
    for loader in (data.test_dataloader()[0], data.predict_dataloader()[0]):
        assert [len(y) for _, y in loader] == [40, 40, 20]


def test_training_goes_on_from_the_epoch_and_the_batch_of_a_state(pool: Samples) -> None:
    data = Table(pool, batch_size=10)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]  # a BatchSampler has it
    whole = _rows(loader)
    resumed = Table(pool, batch_size=10)
    resumed.load_state_dict({**data.state_dict(), "epoch": 2, "batch": 5})
    assert _rows(resumed.train_dataloader()) == whole[5:]


def test_the_state_is_loaded_safely_and_brings_what_was_fitted(pool: Samples) -> None:
    data = Table(Samples(pool.x, pool.y.float()), task="regression")
    file = io.BytesIO()
    torch.save(data.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state["class_path"] == f"{__name__}.Table"
    other = Table(Samples(pool.x * 7, pool.y * 7.0), task="regression")
    other.load_state_dict(state)
    torch.testing.assert_close(other.statistics, data.statistics, rtol=0, atol=0)

    classes = Table(pool)
    classes.class_names = ["red", "green", "blue"]
    other = Table(pool)
    other.load_state_dict(classes.state_dict())
    assert other.class_names == ["red", "green", "blue"]


def test_worker_processes_give_the_same_batches() -> None:
    batches = []
    for num_workers in (0, 2):
        data = DigitsDataModule(batch_size=100, num_workers=num_workers)
        loader = data.train_dataloader()
        batches.append([batch for _ in range(2) for batch in loader] + list(data.val_dataloader()[0]))
    torch.testing.assert_close(batches[0], batches[1], rtol=0, atol=0)


def test_a_loader_draws_nothing_from_the_global_generator(pool: Samples) -> None:
    data = Table(pool)
    state = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader()[0])
    assert torch.get_rng_state().equal(state)


# From raw to batches, and from scores to words


class _Marked(ToyDataModule):
    """Iris, in which augmenting can be seen."""

    def augment(self, x: Tensor) -> Tensor:
        """Make every number large."""
        return x + 1000


Batch = tuple[Tensor, Tensor]


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


def test_fitting_without_a_validation_split_validates_nothing() -> None:
    look = _Look()
    trainer = quiet_trainer(callbacks=[look])
    trainer.fit(LitMLP(4, [4], num_outputs=3), ToyDataModule("iris", val_fraction=0))
    assert look.smallest.keys() == {"train"}
    assert not trainer.enable_validation


@pytest.mark.parametrize("raw", [[1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0), torch.arange(1, 5)])
def test_a_raw_row_is_encoded_as_a_batch_holds_it(raw: object) -> None:
    encoded = ToyDataModule("iris").encode(raw)
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("raw", [[], [1, 2, 3], [1, 2, 3, 4, 5], [[1, 2, 3, 4]] * 2])
def test_a_raw_row_of_another_size_is_refused(raw: object) -> None:
    with pytest.raises(DataError, match=r"ToyDataModule: an input has 4 numbers, not \d"):
        ToyDataModule("iris").encode(raw)


def test_probabilities_become_the_names_of_classes() -> None:
    decoded = ToyDataModule("iris").decode(torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]]))
    assert decoded == {
        "prediction": ["setosa", "virginica"],
        "probability_setosa": [0.5, 0.0],
        "probability_versicolor": [0.25, 0.25],
        "probability_virginica": [0.25, 0.75],
    }


def test_so_does_the_probability_of_the_second_of_two() -> None:
    decoded = ToyDataModule("breast_cancer").decode(torch.tensor([0.25, 0.75]))
    assert decoded == {
        "prediction": ["malignant", "benign"],
        "probability_malignant": [0.75, 0.25],
        "probability_benign": [0.25, 0.75],
    }


def test_values_stay_what_they_are() -> None:
    assert ToyDataModule("diabetes").decode(torch.tensor([1.5, -2.0])) == {"prediction": [1.5, -2.0]}


def test_names_of_options_are_kept_for_the_checkpoint_but_not_for_the_logger() -> None:
    data = DigitsDataModule(batch_size=5, shift=1)
    assert (data.hparams["batch_size"], data.hparams["shift"], data.hparams["val_fraction"]) == (5, 1, 0.1)
    assert not data._log_hyperparams


def test_an_image_with_its_channels_last_is_not_scrambled() -> None:
    with pytest.raises(DataError, match=r"an input is \(1, 8, 8\), not \(8, 8, 1\)"):
        DigitsDataModule().encode(torch.zeros(8, 8, 1))


# Features that are computed once


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
