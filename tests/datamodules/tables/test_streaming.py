"""Batches of a streamed table: every row, in an order that can be resumed and shared."""

import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
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
from lit_models import LitMLP
from tests.helpers.front_door import ROOT, Run
from tests.helpers.streams import BUFFERED, GROUP, SIZE, flat, numbers, rows_of, stream_of, table, write_csv
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("small_buffers")


def test_every_row_comes_once_in_every_epoch(path: str) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0)
    loader = data.train_dataloader()
    assert isinstance(data.splits["train"], TableStream)
    for _ in range(3):
        batches = list(loader)
        assert sorted(flat(batches)) == list(range(SIZE))
        assert [len(y) for _, y in batches] == [16] * 25
        assert len(batches) == len(loader)


def test_a_stream_has_no_rows_by_number(path: str) -> None:
    with pytest.raises(DataError, match=r"`train_dataloader\(\)`, or give `streaming=False`"):
        stream_of(path).splits["train"][0]


def test_each_epoch_is_a_use_of_the_cached_file_but_never_touches_the_users(path: str, workdir: Path) -> None:
    text = stream_of(write_csv(workdir / "text.csv", table()), cache_dir=str(workdir / "cache"))
    for data, is_cached in ((text, True), (stream_of(path), False)):
        loader = data.train_dataloader()
        file = data.splits["train"].samples.groups[0].file
        for _ in range(2):
            os.utime(file, (1e9, 1e9))
            assert list(loader)
            assert (file.stat().st_mtime > 1e9) == is_cached


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
    with pytest.raises(DataError, match=f"num_workers={after}: a run is resumed .* it had {before}"):
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
    "--model LitMLP --model.hidden [16] --model.dropout 0.3 --model.scheduler one-cycle"
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
    with pytest.raises(DataError, match=r"fewer row groups than processes; give `devices=1`"):
        stream_of(workdir / "table.parquet").train_dataloader()


@pytest.mark.slow
def test_two_processes_stream_together(path: str, workdir: Path) -> None:
    line = (
        f"{ROOT}/train.py --data CSVDataModule --data.path {path} --data.streaming true --data.batch_size 16 "
        "--model LitMLP --accelerator cpu --devices 2 --strategy ddp --max_epochs 2"
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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_last_batch_that_is_not_full_may_be_left_out(path: str, num_workers: int) -> None:
    data = stream_of(path, val_fraction=0, test_fraction=0, batch_size=90, drop_last=True, num_workers=num_workers)
    loader = data.train_dataloader()
    dropped = set()
    for _ in range(2):
        batches = numbers(loader)
        assert [len(batch) for batch in batches] == [90] * 4
        assert len(loader) == 4
        dropped |= set(range(SIZE)) - {row for batch in batches for row in batch}
    assert len(dropped) > 40
    assert sum(len(y) for _, y in stream_of(path, drop_last=True).test_dataloader()[0]) == len(
        rows_of(stream_of(path), "test")
    )
    with pytest.raises(DataError, match=r"^drop_last=True: 400 training samples do not fill a batch of 500"):
        stream_of(path, val_fraction=0, test_fraction=0, batch_size=500, drop_last=True).train_dataloader()
