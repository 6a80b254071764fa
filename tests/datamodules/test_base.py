"""What every data module shares."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import DataError, DigitsDataModule, Samples, ToyDataModule
from datamodules.base import Balance
from tests.helpers.samples import Table


def _rows(batches: Iterable[tuple[Tensor, Tensor]]) -> list[list[float]]:
    return [x[:, 0].tolist() for x, _ in batches]


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
    with pytest.raises(DataError, match=f"balance='{balance}'"):
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
    with pytest.raises(DataError, match=f"^{next(reversed(options))}={next(reversed(options.values()))}: "):
        Table(pool, **options)


def test_too_little_to_learn_from_is_refused(pool: Samples) -> None:
    two = Samples(pool.x[:2], pool.y[:2])
    with pytest.raises(DataError, match="left to train on"):
        _ = Table(two, test_fraction=0.9, val_fraction=0.9).splits
    with pytest.raises(DataError, match="only 2 samples"):
        _ = Table(two, num_folds=3).splits


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
    assert state["class_path"] == f"{Table.__module__}.Table"
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
    with pytest.raises(DataError, match=r"an input is \(1, 8, 8\),.* not \(8, 8, 1\)"):
        DigitsDataModule().encode(torch.zeros(8, 8, 1))


def test_a_last_training_batch_that_is_not_full_may_be_left_out(pool: Samples) -> None:
    data = Table(pool, batch_size=50, drop_last=True)  # of 144
    assert [len(x) for x, _ in data.train_dataloader()] == [50, 50]
    assert [len(x) for x, _ in data.val_dataloader()[0]] == [16]
    assert [len(x) for x, _ in data.test_dataloader()[0]] == [40]
    without_test = Table(pool, batch_size=50, drop_last=True, test_fraction=0, val_fraction=0.25)
    assert sum(len(x) for x, _ in without_test.predict_dataloader()[0]) == 150


def test_a_split_smaller_than_a_batch_has_none_to_leave_out(pool: Samples) -> None:
    data = Table(pool, batch_size=150, drop_last=True)
    with pytest.raises(DataError, match=r"^drop_last=True: 144 training samples do not fill a batch of 150; give a "):
        data.train_dataloader()


def test_hyperparameters_and_settings_are_primitives() -> None:
    data = ToyDataModule("iris", val_fraction=np.float64(0.25), batch_size=np.int64(8))
    assert {type(data.hparams[name]) for name in ("val_fraction", "batch_size")} == {float, int}
    assert {type(value) for value in data.resumed_settings().values()} == {float, int, str, bool}
