"""Tables read in parts: the same rows, splits, order and predictions as if they were in memory."""

import csv
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules import CSVDataModule, DataError
from datamodules.base import Stage
from datamodules.tables.row_groups import RowGroups
from datamodules.tables.streaming import TableStream
from kindling.callbacks import PredictionWriter
from lit_models import LitMLP
from tests.conftest import ROOT, Run
from tests.helpers.trainers import quiet_trainer

SIZE = 400
GROUP = 13  # rows in a row group
BUFFERED = 40  # rows, about, that are shuffled together


def table(size: int = SIZE, seed: int = 0) -> pa.Table:
    """Rows that are recognizable by `a`, with gaps in `b` and `c`, of about fifty groups."""
    rng = np.random.default_rng(seed)
    b = pa.array(rng.normal(size=size).astype(np.float32), mask=rng.random(size) < 0.1)
    c = pa.array(rng.choice(["red", "green", "blue"], size), mask=rng.random(size) < 0.1)
    return pa.table(
        {
            "id": [f"r{seed}-{at:04}" for at in range(size)],
            "a": np.arange(size, dtype=np.float32),
            "b": b,
            "c": c,
            "group": rng.integers(0, 50, size),
            "note": [f"no two are alike: {at}" for at in range(size)],
            "y": rng.choice(["no", "no", "yes"], size),
        }
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make buffers as small as these tables need to have many."""
    # a, b and group, whether b is missing, c; 4 bytes each
    monkeypatch.setattr("datamodules.tables.streaming.BUFFER", 4 * 5 * BUFFERED)


@pytest.fixture
def path(workdir: Path) -> str:
    """A Parquet file of many row groups."""
    pq.write_table(table(), workdir / "table.parquet", row_group_size=GROUP)
    return str(workdir / "table.parquet")


def stream_of(path: str | Path, **options: Any) -> CSVDataModule:
    """Make streamed data."""
    return CSVDataModule(str(path), streaming=True, **{"batch_size": 16, **options})


def numbers(batches: Iterable[Any]) -> list[list[int]]:
    """Which rows are in each batch."""
    return [[int(a) for a in (batch if isinstance(batch, Tensor) else batch[0])[:, 0]] for batch in batches]


def flat(batches: Iterable[Any]) -> list[int]:
    """Which rows are in the batches."""
    return [number for batch in numbers(batches) for number in batch]


def rows_of(data: CSVDataModule, stage: Stage) -> list[int]:
    """Which rows are in a split, in their order."""
    if stage == "train":
        return flat(data.train_dataloader())
    return flat((data.val_dataloader() if stage == "val" else data.test_dataloader())[0])


def write_csv(path: Path, made: pa.Table, names: list[str] | None = None, header: bool = True) -> str:
    """Write a table as text, as it is."""
    names = names or made.column_names
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([names] * header)
        writer.writerows([["" if row[name] is None else row[name] for name in names] for row in made.to_pylist()])
    return str(path)


# Every row, and its order


def test_every_row_comes_once_in_every_epoch(path: str) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0)
    loader = data.train_dataloader()
    assert isinstance(data.splits["train"], TableStream)
    for _ in range(3):
        batches = list(loader)
        assert sorted(flat(batches)) == list(range(SIZE))
        assert [len(y) for _, y in batches] == [16] * 25
        assert len(batches) == len(loader)


def test_a_row_keeps_its_target_and_its_other_numbers(path: str) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0)
    rows = table().to_pylist()
    for x, y in data.train_dataloader():
        for row, label in zip(x, y, strict=True):
            original = rows[int(row[0])]
            assert row.equal(data.encode(original))
            assert data.class_names is not None
            assert data.class_names[int(label)] == original["y"]


def test_the_order_is_another_in_every_epoch_and_the_same_for_the_same_seed(path: str) -> None:
    orders = {}
    for seed, again in itertools.product((0, 1), (False, True)):
        loader = stream_of(path, seed=seed, val_fraction=0, test_fraction=0).train_dataloader()
        for epoch in range(3):
            orders[seed, again, epoch] = tuple(flat(loader))
    assert len(set(orders.values())) == 6
    for (seed, again, epoch), order in orders.items():
        assert order == orders[seed, not again, epoch]


def test_row_groups_are_mixed_within_a_buffer(path: str) -> None:
    order = np.array(rows_of(stream_of(path, val_fraction=0, test_fraction=0), "train"))
    assert (np.diff(order) == 1).mean() < 0.1
    first = order[:BUFFERED] // GROUP
    assert 3 <= len(set(first.tolist())) <= 5  # of 31 row groups, those of the first buffer
    assert (np.diff(first) != 0).mean() > 0.4


def test_a_loader_draws_nothing_from_the_global_generators(path: str) -> None:
    data = stream_of(path)
    loader = data.train_dataloader()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    list(loader)
    assert torch.get_rng_state().equal(torch_state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


def test_what_is_held_out_comes_in_the_order_of_the_file(path: str) -> None:
    data = stream_of(path, val_fraction=0.3, test_fraction=0.3)
    for stage in ("val", "test"):
        found = rows_of(data, stage)
        assert found == sorted(found)
        assert found == rows_of(data, stage)


@pytest.mark.parametrize(
    ("size", "batch_size", "sizes"),
    [(33, 16, [16, 17]), (34, 16, [16, 16, 2]), (32, 16, [16, 16]), (3, 2, [2, 1]), (2, 1, [1, 1]), (17, 16, [17])],
)
def test_a_last_batch_of_one_row_joins_another(workdir: Path, size: int, batch_size: int, sizes: list[int]) -> None:
    made = table(size).set_column(6, "y", pa.array([at * 1.5 for at in range(size)]))
    pq.write_table(made, workdir / "table.parquet", row_group_size=GROUP)
    data = stream_of(
        workdir / "table.parquet", batch_size=batch_size, task="regression", val_fraction=0, test_fraction=0
    )
    loader = data.train_dataloader()
    batches = list(loader)
    assert [len(y) for _, y in batches] == sizes
    assert len(loader) == len(sizes)
    assert sorted(flat(batches)) == list(range(size))


# Splits


def test_splits_are_disjoint_complete_and_about_as_large_as_asked(workdir: Path) -> None:
    pq.write_table(table(3000), workdir / "table.parquet", row_group_size=200)
    data = stream_of(workdir / "table.parquet", test_fraction=0.3, val_fraction=0.2)
    found = {stage: rows_of(data, stage) for stage in ("train", "val", "test")}
    assert sorted(itertools.chain.from_iterable(found.values())) == list(range(3000))
    # Four standard deviations are 100, 81 and 108.
    assert len(found["test"]) == pytest.approx(900, abs=100)
    assert len(found["val"]) == pytest.approx(420, abs=81)
    assert len(found["train"]) == pytest.approx(1680, abs=108)
    assert {stage: data.splits[stage].size for stage in data.splits} == {s: len(rows) for s, rows in found.items()}


def test_splits_are_those_of_the_seed(path: str) -> None:
    found = {}
    for seed in range(3):
        data, again = stream_of(path, seed=seed), stream_of(path, seed=seed)
        for stage in ("train", "val", "test"):
            found[seed, stage] = tuple(sorted(rows_of(data, stage)))
            assert found[seed, stage] == tuple(sorted(rows_of(again, stage)))
    assert len(set(found.values())) == 9


def test_splits_do_not_depend_on_how_the_file_is_stored(path: str, workdir: Path) -> None:
    pq.write_table(table(), workdir / "other.parquet", row_group_size=111)
    write_csv(workdir / "table.csv", table())
    (workdir / "folder").mkdir()
    pq.write_table(table()[:150], workdir / "folder" / "1.parquet")
    pq.write_table(table()[150:], workdir / "folder" / "2.parquet")
    data = stream_of(path)
    for other in ("other.parquet", "table.csv", "folder"):
        again = stream_of(workdir / other)
        for stage in ("train", "val", "test"):
            assert sorted(rows_of(again, stage)) == sorted(rows_of(data, stage))


@pytest.mark.parametrize("as_text", [True, False])
def test_groups_are_never_divided(workdir: Path, as_text: bool) -> None:
    made = table(1000)
    groups = made["group"].to_pylist()
    if as_text:
        made = made.set_column(4, "group", pa.array([f"group {group}" for group in groups]))
    pq.write_table(made, workdir / "table.parquet", row_group_size=50)
    data = stream_of(workdir / "table.parquet", group_column="group", test_fraction=0.3, val_fraction=0.3)
    stages: tuple[Stage, ...] = ("train", "val", "test")
    inside = [{groups[row] for row in rows_of(data, stage)} for stage in stages]
    assert all(inside)
    assert sum(map(len, inside)) == 50
    assert sorted(row for stage in stages for row in rows_of(data, stage)) == list(range(1000))


@pytest.mark.parametrize("group_column", [None, "group"])
def test_folds_cover_everything(path: str, group_column: str | None) -> None:
    tested: list[int] = []
    for fold in range(4):
        data = stream_of(path, num_folds=4, fold=fold, val_fraction=0.2, group_column=group_column)
        assert data.tests_fold
        found = {stage: rows_of(data, stage) for stage in ("train", "val", "test")}
        assert all(found.values())
        assert sorted(itertools.chain.from_iterable(found.values())) == list(range(SIZE))
        tested += found["test"]
    assert sorted(tested) == list(range(SIZE))


def test_validation_and_test_can_be_tables_of_their_own(path: str, workdir: Path) -> None:
    pq.write_table(table(50, seed=1), workdir / "val.parquet", row_group_size=9)
    pq.write_table(table(60, seed=2), workdir / "test.parquet", row_group_size=9)
    val, test = str(workdir / "val.parquet"), str(workdir / "test.parquet")
    data = stream_of(path, val_path=val, test_path=test)
    assert [sorted(rows_of(data, stage)) for stage in ("train", "val", "test")] == [
        list(range(size)) for size in (SIZE, 50, 60)
    ]
    held_out: list[int] = []
    for fold in range(3):
        data = stream_of(path, test_path=test, num_folds=3, fold=fold)
        assert rows_of(data, "test") == list(range(60))
        assert not data.tests_fold
        assert sorted(rows_of(data, "train") + rows_of(data, "val")) == list(range(SIZE))
        held_out += rows_of(data, "val")
    assert sorted(held_out) == list(range(SIZE))


def test_with_both_there_is_no_fold_to_hold_out(path: str) -> None:
    with pytest.raises(DataError, match=r"--data.num_folds: validation and test are given apart"):
        _ = stream_of(path, val_path=path, test_path=path, num_folds=3).splits


def test_rows_without_a_target_are_left_out_and_that_is_said(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    y: list[str | None] = table()["y"].to_pylist()
    y[7], y[200], y[399] = None, " ", ""
    pq.write_table(table().set_column(6, "y", pa.array(y)), workdir / "table.parquet", row_group_size=GROUP)
    data = stream_of(workdir / "table.parquet")
    found = sorted(row for stage in data.splits for row in rows_of(data, stage))
    assert found == sorted(set(range(SIZE)) - {7, 200, 399})
    assert "table.parquet: 3 rows without a value of y are left out" in capsys.readouterr().out


def test_what_is_held_out_has_no_say_in_what_is_fitted(path: str, workdir: Path) -> None:
    data = stream_of(path)
    train = set(rows_of(data, "train"))
    rows = table().to_pylist()
    for at, row in enumerate(rows):
        if at not in train:
            row.update(b=1e9, c="purple", group=10**6)
    pq.write_table(pa.Table.from_pylist(rows, table().schema), workdir / "other.parquet", row_group_size=GROUP)
    spoilt = stream_of(workdir / "other.parquet")
    assert sorted(rows_of(spoilt, "train")) == sorted(train)
    assert spoilt.columns.to_state() == data.columns.to_state()
    a = torch.tensor(sorted(train), dtype=torch.float64)
    torch.testing.assert_close(data.statistics["mean"][0], a.mean().float())
    torch.testing.assert_close(data.statistics["std"][0], a.std(correction=0).float())


# Worker processes, and resuming


def test_worker_processes_give_the_same_rows(path: str) -> None:
    loaders = [stream_of(path, num_workers=num_workers).train_dataloader() for num_workers in (0, 2)]
    for _ in range(2):
        alone, shared = (list(loader) for loader in loaders)
        assert len(alone) == len(shared)
        assert Counter(flat(alone)) == Counter(flat(shared))
        assert sorted(map(sorted, numbers(alone))) == sorted(map(sorted, numbers(shared)))


def _resumed(path: str, epoch: int, start: int, num_workers: int) -> list[list[int]]:
    data = stream_of(path, batch_size=64, num_workers=num_workers, val_fraction=0, test_fraction=0)
    data._position = epoch, start
    return numbers(data.train_dataloader())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_goes_on_with_exactly_what_is_left(path: str, num_workers: int) -> None:
    data = stream_of(path, batch_size=64, num_workers=num_workers, val_fraction=0, test_fraction=0)
    loader = data.train_dataloader()
    epochs = [numbers(loader) for _ in range(2)]
    assert len(epochs[1]) == 7
    for start in range(7):
        assert _resumed(path, 1, start, num_workers) == epochs[1][start:], start


def test_the_next_epoch_after_a_resumed_one_is_whole(path: str) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0)
    loader = data.train_dataloader()
    epochs = [numbers(loader) for _ in range(3)]
    again = stream_of(path, val_fraction=0, test_fraction=0)
    again._position = 1, 20
    loader = again.train_dataloader()
    assert numbers(loader) == epochs[1][20:]
    assert numbers(loader) == epochs[2]


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (2, 3)])
def test_within_an_epoch_the_number_of_workers_stays(path: str, before: int, after: int) -> None:
    state = {**stream_of(path, num_workers=before).state_dict(), "epoch": 0, "batch": 3}
    data = stream_of(path, num_workers=after)
    data.trainer = quiet_trainer()
    data.trainer.state.fn = TrainerFn.FITTING
    with pytest.raises(DataError, match=f"--data.num_workers {after}: a run is resumed .* it had {before}"):
        data.load_state_dict(state)
    data.load_state_dict({**state, "batch": 0})


def test_the_place_in_the_epoch_is_in_the_state(path: str) -> None:
    data = stream_of(path)
    whole = numbers(data.train_dataloader())
    again = stream_of(path)
    again.load_state_dict({**data.state_dict(), "epoch": 0, "batch": 5})
    assert numbers(again.train_dataloader()) == whole[5:]


class Reads:
    """Counts which row groups, and which columns of them, are read.

    Args:
        monkeypatch: What puts things back.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[int] = []
        self.columns: set[str] = set()
        read = RowGroups.read

        def counted(table: RowGroups, group: Any, columns: list[str] | None = None) -> pa.Table:  # noqa: ANN401
            self.groups.append(group.number)
            self.columns.update(table.names if columns is None else columns)
            return read(table, group, columns)

        monkeypatch.setattr(RowGroups, "read", counted)

    def during(self, batches: Iterable[Any]) -> list[int]:
        """Go through the batches, and give the row groups that were read meanwhile."""
        self.groups.clear()
        for _ in batches:
            pass
        return list(self.groups)


def test_a_resumed_epoch_reads_only_what_it_needs(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    data = stream_of(path, val_fraction=0, test_fraction=0)
    whole = reads.during(data.train_dataloader())
    assert set(whole) == set(range(31))
    order = list(dict.fromkeys(whole))
    for start in (1, 6, 13, 24):
        data._position = 0, start
        found = list(dict.fromkeys(reads.during(data.train_dataloader())))
        needed = SIZE - 16 * start
        # All that is left, what began before it in its buffer, and at most one buffer more than needed.
        assert order[-(needed // GROUP) :] == [group for group in order if group in found][-(needed // GROUP) :]
        assert len(found) * GROUP <= needed + 3 * (BUFFERED + GROUP)


def test_an_epoch_reads_every_row_group_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    data = stream_of(path, val_fraction=0.5, test_fraction=0)
    assert data.columns
    for loader in (data.train_dataloader(), data.val_dataloader()[0], data.predict_dataloader()[0]):
        assert Counter(reads.during(loader)) == Counter(range(31))


def test_columns_that_are_not_learned_from_are_not_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream_of(path)
    assert {column.name for column in data.columns.columns if column.role != "feature"} == {"id", "note", "y"}
    reads = Reads(monkeypatch)
    reads.during(data.train_dataloader())
    assert reads.columns == {"a", "b", "c", "group", "y"}


def _runs(run: Run, flags: str, step: int, resumed: str) -> list[dict[str, Tensor]]:
    """Train without and with an interruption: the weights of both."""
    run(flags)
    with pytest.raises(SystemExit):
        run(f"{flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step {step}")
    last = "runs/LitMLP-CSVDataModule/version_{}/checkpoints/last.ckpt"
    assert torch.load(last.format(1), weights_only=True)["global_step"] == step
    run(f"--ckpt_path {last.format(1)} --max_epochs 3 {resumed}")
    return [torch.load(last.format(version), weights_only=True)["state_dict"] for version in (0, 2)]


FLAGS = (
    "--data CSVDataModule --data.path table.parquet --data.streaming true --data.batch_size 32 --max_epochs 3 "
    "--model.hidden [16] --model.dropout 0.3 --model.scheduler one-cycle"
)


# There are 10 steps in an epoch: in the first one, at its end, after its end, and in the middle of a later one.
@pytest.mark.parametrize("step", [1, 10, 11, 25])
def test_a_resumed_run_equals_an_uninterrupted_one(run: Run, path: str, step: int) -> None:
    whole, resumed = _runs(run, FLAGS, step, "")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


@pytest.mark.parametrize("step", [4, 5])
def test_so_does_one_with_worker_processes(run: Run, path: str, step: int) -> None:
    whole, resumed = _runs(run, f"{FLAGS} --data.num_workers 2", step, "")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


# At the end of an epoch, in the first one, at its end by another flag, and in a later one.
@pytest.mark.parametrize("end", ["--max_epochs 2", "--max_steps 4", "--max_steps 10", "--max_steps 14"])
def test_a_finished_run_goes_on_with_the_batches_that_follow(run: Run, path: str, end: str) -> None:
    flags = FLAGS.replace("--max_epochs 3", "").replace("one-cycle", "none")
    run(f"{flags} --max_epochs 3")
    run(f"{flags} {end}")
    last = "runs/LitMLP-CSVDataModule/version_{}/checkpoints/last.ckpt"
    run(f"--ckpt_path {last.format(1)} --max_epochs 3")
    whole, resumed = (torch.load(last.format(version), weights_only=True)["state_dict"] for version in (0, 2))
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


class Order(torch.nn.Module):
    """Notes the rows that a model is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Look at a batch, as it was before it was standardised."""
        self.seen.append(tuple((x[:, 0] * 1000).round().int().tolist()))
        return x


@pytest.mark.parametrize("options", [{}, {"reload_dataloaders_every_n_epochs": 1}])
def test_a_trainer_goes_through_other_orders_in_other_epochs(path: str, options: dict[str, Any]) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0, batch_size=100)
    model = LitMLP(data.in_features, [4], task="binary", num_outputs=1, cat_cardinalities=data.cat_cardinalities)
    order = Order()
    assert isinstance(model.net, torch.nn.Module)
    model.net = torch.nn.Sequential(order, model.net)
    quiet_trainer(max_epochs=3, **options).fit(model, data)
    epochs = [tuple(order.seen[at : at + 4]) for at in (0, 4, 8)]
    assert len(order.seen) == 12
    assert len(set(epochs)) == 3
    assert len({tuple(sorted(row for batch in epoch for row in batch)) for epoch in epochs}) == 1


# Several processes


def _ranks(data: CSVDataModule, stage: Stage, num_ranks: int) -> list[list[list[int]]]:
    """What each process of several would go through."""
    stream = data.splits[stage]
    found = []
    for rank in range(num_ranks):
        stream.rank, stream.num_ranks = rank, num_ranks
        stream.set_epoch(0)
        batches = numbers(stream)
        assert len(batches) == len(stream)
        found.append(batches)
    return found


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_processes_share_the_rows_out_in_as_many_batches_each(path: str, num_ranks: int) -> None:
    batches = _ranks(stream_of(path, val_fraction=0, test_fraction=0), "train", num_ranks)
    assert len({tuple(map(len, shared)) for shared in batches}) == 1
    rows = [set(itertools.chain.from_iterable(shared)) for shared in batches]
    assert sum(map(len, rows)) == len(set().union(*rows))  # no row is seen by two
    # Whole row groups are dealt out, so that the shares differ by one of them at most.
    assert len(set().union(*rows)) >= SIZE - num_ranks * GROUP


def test_processes_leave_nothing_out_where_the_row_groups_can_be_shared_evenly(workdir: Path) -> None:
    pq.write_table(table(), workdir / "table.parquet", row_group_size=20)
    batches = _ranks(stream_of(workdir / "table.parquet", val_fraction=0, test_fraction=0), "train", 4)
    seen = [row for shared in batches for batch in shared for row in batch]
    assert sorted(seen) == list(range(SIZE))


@pytest.mark.parametrize("stage", ["val", "test"])
def test_processes_evaluate_every_row_once(path: str, stage: Stage) -> None:
    data = stream_of(path, val_fraction=0.3, test_fraction=0.3)
    whole = rows_of(data, stage)
    seen = [row for shared in _ranks(data, stage, 3) for batch in shared for row in batch]
    assert sorted(seen) == whole


def test_splits_are_the_same_in_every_process(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = stream_of(path)
    stages: tuple[Stage, ...] = ("train", "val", "test")
    expected = {stage: set(rows_of(alone, stage)) for stage in stages}
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    seen: dict[Stage, list[set[int]]] = {stage: [] for stage in stages}
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        data = stream_of(path)
        for stage in stages:
            assert data.splits[stage].counts.tolist() == alone.splits[stage].counts.tolist()
            # The splits may be there before the processes know each other; the loaders are not.
            _ = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[stage]()
            assert (data.splits[stage].rank, data.splits[stage].num_ranks) == (rank, 2)
            seen[stage].append(set(rows_of(data, stage)))
    for stage, (first, second) in seen.items():
        assert first | second <= expected[stage]
        assert not first & second


def test_fewer_row_groups_than_processes_are_refused(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(), workdir / "table.parquet", row_group_size=200)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    with pytest.raises(DataError, match=r"fewer row groups than processes; give --devices 1"):
        stream_of(workdir / "table.parquet").train_dataloader()


# The same as in memory


@pytest.fixture
def checkpoint(path: str, workdir: Path) -> str:
    """A model that learned from the table in memory."""
    data = CSVDataModule(path)
    torch.manual_seed(0)
    model = LitMLP(data.in_features, [8], task="binary", num_outputs=1, cat_cardinalities=data.cat_cardinalities)
    trainer = quiet_trainer()
    trainer.fit(model, data)
    trainer.save_checkpoint(workdir / "model.ckpt")
    return str(workdir / "model.ckpt")


def _predict(checkpoint: str, data: CSVDataModule) -> tuple[list[str], list[float]]:
    trainer = quiet_trainer(callbacks=[PredictionWriter("predictions.csv")])
    model = LitMLP.load_from_checkpoint(checkpoint, weights_only=True)
    trainer.predict(model, data, ckpt_path=checkpoint, return_predictions=False, weights_only=True)
    with open("predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["id"] for row in rows], [float(row["probability_yes"]) for row in rows]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["Parquet", "CSV", "no target"])
def test_predictions_are_those_of_a_table_in_memory(
    checkpoint: str, workdir: Path, kind: str, num_workers: int
) -> None:
    new = table(150, seed=1)
    if kind == "CSV":
        path = write_csv(workdir / "new.csv", new)
    else:
        new = new.drop_columns(["y"]) if kind == "no target" else new
        pq.write_table(new, workdir / "new.parquet", row_group_size=GROUP)
        path = str(workdir / "new.parquet")
    keys, expected = _predict(checkpoint, CSVDataModule(path))
    assert keys == new["id"].to_pylist()
    assert len(set(expected)) > 100
    found_keys, found = _predict(checkpoint, stream_of(path, num_workers=num_workers, batch_size=8))
    assert found_keys == keys
    assert found == pytest.approx(expected, abs=1e-6)


def test_rows_are_encoded_as_in_memory(path: str) -> None:
    resident = CSVDataModule(path)
    streamed = stream_of(path)
    streamed.load_state_dict(resident.state_dict())
    whole = resident.splits["train"].samples
    assert torch.cat(list(streamed.predict_dataloader()[0])).equal(whole.x)
    for stage in ("train", "val", "test"):
        for x, y in streamed._loader(stage)[0]:
            rows = x[:, 0].long()
            assert x.equal(whole.x[rows])
            assert y.equal(whole.y[rows])


def test_columns_are_fitted_as_in_memory(path: str) -> None:
    resident = CSVDataModule(path, val_fraction=0, test_fraction=0)
    streamed = stream_of(path, val_fraction=0, test_fraction=0)
    assert streamed.columns.to_state() == resident.columns.to_state()
    assert (streamed.task, streamed.class_names) == (resident.task, resident.class_names)
    torch.testing.assert_close(streamed.statistics, resident.statistics)
    assert streamed.key_column == resident.key_column == "id"


def test_a_regression_is_streamed_too(path: str) -> None:
    resident = CSVDataModule(path, target="a", val_fraction=0, test_fraction=0)
    streamed = stream_of(path, target="a", val_fraction=0, test_fraction=0)
    assert streamed.task == resident.task == "regression"
    torch.testing.assert_close(streamed.statistics, resident.statistics)
    targets = torch.cat([y for _, y in streamed.train_dataloader()])
    assert targets.sort().values.equal(torch.arange(float(SIZE)))


def test_a_test_on_another_table_takes_all_of_its_rows(
    checkpoint: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(table(150, seed=1), workdir / "new.parquet", row_group_size=GROUP)
    found = []
    for data in (CSVDataModule(str(workdir / "new.parquet")), stream_of(workdir / "new.parquet")):
        model = LitMLP.load_from_checkpoint(checkpoint, weights_only=True)
        found.append(quiet_trainer().test(model, data, ckpt_path=checkpoint, verbose=False, weights_only=True)[0])
        assert "new.parquet is not what the model was trained on: all of its rows are used" in capsys.readouterr().out
        assert sum(len(y) for _, y in data.test_dataloader()[0]) == 150
    assert found[1] == pytest.approx(found[0], rel=1e-5)


# Text that is converted


def _same_as_resident(path: str | Path) -> None:
    resident = CSVDataModule(str(path), target="y", val_fraction=0, test_fraction=0)
    streamed = stream_of(path, target="y", val_fraction=0, test_fraction=0)
    assert streamed.columns.to_state() == resident.columns.to_state()
    torch.testing.assert_close(
        torch.cat(list(streamed.predict_dataloader()[0])), resident.splits["train"].samples.x, rtol=0, atol=0
    )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a text table be parsed in small blocks, of which the first tells the types."""
    monkeypatch.setattr("datamodules.tables.reader.SAMPLE", 1000)
    monkeypatch.setattr("datamodules.tables.reader.BLOCK", 1000)
    monkeypatch.setattr("datamodules.tables.files.BLOCK", 8000)


@pytest.mark.usefixtures("small_blocks")
def test_text_is_converted_to_what_it_is_in_memory(workdir: Path) -> None:
    _same_as_resident(write_csv(workdir / "table.csv", table()))


@pytest.mark.usefixtures("small_blocks")
def test_a_fraction_that_comes_late_is_no_surprise(workdir: Path) -> None:
    rows = table().to_pylist()
    for row in rows[200:]:
        row["group"] += 0.5
    made = pa.Table.from_pylist(rows, table().schema.set(4, pa.field("group", pa.float64())))
    path = Path(write_csv(workdir / "table.csv", made))
    path.write_text(path.read_text().replace(".0,no two", ",no two"))
    _same_as_resident(path)


@pytest.mark.usefixtures("small_blocks")
def test_files_of_a_folder_may_have_their_columns_in_another_order(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    write_csv(workdir / "folder" / "1.csv", table()[:100])
    write_csv(workdir / "folder" / "2.csv", table()[100:], table().column_names[::-1])
    _same_as_resident(workdir / "folder")


@pytest.mark.usefixtures("small_blocks")
def test_and_a_fraction_in_the_second_only(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    whole = table().set_column(4, "group", pa.array([at % 50 for at in range(SIZE)]))
    write_csv(workdir / "folder" / "1.csv", whole[:100])
    names = [*whole.column_names[1:], "id"]
    late = whole[100:].set_column(4, "group", pa.array([at % 50 + 0.5 for at in range(300)]))
    write_csv(workdir / "folder" / "2.csv", late, names)
    _same_as_resident(workdir / "folder")


def test_parquet_files_of_a_folder_may_have_their_columns_in_another_order(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    pq.write_table(table()[:100], workdir / "folder" / "1.parquet")
    pq.write_table(table()[100:].select(table().column_names[::-1]), workdir / "folder" / "2.parquet")
    _same_as_resident(workdir / "folder")


def test_a_second_run_need_not_convert_again(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(workdir / "table.csv", table())
    for times in (1, 0):
        assert stream_of(path).columns
        assert capsys.readouterr().out.count("are converted to Parquet once") == times


# What cannot be


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--data.balance downsample", "--data.balance: a streamed table cannot be taken so"),
        ("--data.balance weights", "--data.balance: a streamed table cannot be taken so"),
        ("--data.time_column a", "--data.time_column: a streamed table cannot be taken so"),
        ("--data.target why", "there is no column 'why'"),
        ("--data.group_column g", "there is no column 'g'"),
        (
            "--data.test_fraction 0.99 --data.val_fraction 0.99 --data.seed 1 --data.path few.parquet",
            "left to train on",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_one_line(
    mistake: Callable[[str], str], path: str, workdir: Path, flags: str, expected: str
) -> None:
    pq.write_table(table()[:20], workdir / "few.parquet")
    flags = flags if "--data.path" in flags else f"--data.path table.parquet {flags}"
    assert expected in mistake(f"--data CSVDataModule --data.streaming true {flags}")


GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7}.5,{'no' if i % 3 else 'yes'}\n" for i in range(60))
BAD = {
    "a class of one": ("20,1.5,no", "20,1.5,maybe", "", "line 22: 'maybe' in column y is the only row of its class"),
    "regression of words": ("", "", "--data.task regression", "line 2: 'yes' in column y is no number"),
    "asked for numbers": ("", "", "--data.target a --data.numeric [y]", "line 2: 'yes' in column y is no number"),
    "short row": ("20,1.5,no", "20,1.5", "", "line 22: 2 values where there are 3 columns"),
    "infinity": ("20,1.5,no", "20,inf,no", "", "line 22: 'inf' in column b is infinite"),
    "one value": ("yes", "no", "", "the target is the same in every row"),
}


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_named_as_in_memory(
    mistake: Callable[[str], str], workdir: Path, case: str, streaming: str
) -> None:
    old, new, flags, expected = BAD[case]
    (workdir / "bad.csv").write_text(GOOD.replace(old, new) if old else GOOD)
    line = f"--data CSVDataModule --data.path bad.csv --data.streaming {streaming} {flags}"
    assert expected in mistake(line)


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_other_columns_are_one_line(
    mistake: Callable[[str], str], workdir: Path, suffix: str, streaming: str
) -> None:
    (workdir / "folder").mkdir()
    for number, made in enumerate((table()[:100], table()[100:].drop_columns(["b"])), 1):
        if suffix == "csv":
            write_csv(workdir / "folder" / f"{number}.csv", made)
        else:
            pq.write_table(made, workdir / "folder" / f"{number}.parquet")
    message = mistake(f"--data CSVDataModule --data.path folder --data.streaming {streaming}")
    assert f"folder/2.{suffix}: column 'b' is not in both this file and folder/1.{suffix}" in message


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_damaged_file_among_others_is_one_line(mistake: Callable[[str], str], workdir: Path, streaming: str) -> None:
    (workdir / "folder").mkdir()
    pq.write_table(table(), workdir / "folder" / "1.parquet")
    (workdir / "folder" / "2.parquet").write_bytes(b"PAR1" + b"junk" * 50)
    message = mistake(f"--data CSVDataModule --data.path folder --data.streaming {streaming}")
    assert "folder/2.parquet: a damaged Parquet file" in message


@pytest.mark.slow
def test_two_processes_stream_together(path: str, workdir: Path) -> None:
    line = (
        f"{ROOT}/train.py --data CSVDataModule --data.path {path} --data.streaming true --data.batch_size 16 "
        "--accelerator cpu --devices 2 --strategy ddp --max_epochs 2"
    )
    done = subprocess.run(
        [sys.executable, *line.split()],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("runs/LitMLP-CSVDataModule/version_0/summary.json").read_text())
    size = stream_of(path).splits["train"].size
    assert summary["steps"] == 2 * math.ceil(math.ceil(size / 2) / 16)
