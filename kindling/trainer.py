"""What a Trainer is made of: data that can be read, the callbacks of every run, and loggers that share its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch import callbacks as stock
from lightning.pytorch.loggers import TensorBoardLogger
from torch.cuda import device_count
from torch.utils.data import IterableDataset

from datamodules import DataModule
from kindling import callbacks as own
from kindling.runs import is_first_process

# The loader that reads what a subcommand uses.
LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
FEW = 5_000  # training samples, below which sharing them among GPUs costs more than it gains
# A callback of one of these kinds that the user gives takes the place of ours.
_KINDS = (stock.EarlyStopping, stock.ProgressBar, stock.LearningRateMonitor)


def check_data(data: DataModule, subcommand: str, overfits: bool) -> None:
    """Read the first of what a subcommand uses; `overfits` says that an epoch sees the same few batches again.

    Raises:
        ArgumentError: If there is nothing to read, or nothing that can be read again.
    """
    stage = LOADERS[subcommand]
    loader = getattr(data, f"{stage}_dataloader")()
    if loader == []:
        raise ArgumentError(None, f"{subcommand}: {type(data).__name__} has no {stage} split here; give other data.")
    if overfits and isinstance(getattr(loader, "dataset", None), IterableDataset):
        what = "a stream has no batches to come back to"
        raise ArgumentError(None, f"--overfit_batches: {what}; give --data.streaming false.")


def one_device(data: LightningDataModule, subcommand: str, trainer: Namespace) -> bool:
    """Whether one GPU of several is to be used, as the data are few or are predicted, and say so.

    Devices, nodes and a strategy that are given in the settings of the Trainer win.
    """
    is_free = (trainer.devices, trainer.num_nodes, trainer.strategy) == ("auto", 1, "auto")
    gpus = device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if not is_free or gpus < 2 or not isinstance(data, DataModule):
        return False
    size = 0 if subcommand == "predict" else data.splits["train"].size
    if size >= FEW:
        return False
    why = f"{size:,} training samples are few" if size else "predictions are written by one process"
    if is_first_process():
        print(f"one of {gpus} GPUs is used, as {why}" + f"; --devices {gpus} uses all of them" * bool(size))
    return True


def make_callbacks(
    subcommand: str, made: Namespace, model: LightningModule, folder: Path | None, logs: bool
) -> list[Callback]:
    """Return the callbacks of a run, with those that the user gave in place of ours of the same kind.

    A ModelCheckpoint that monitors a metric replaces the best checkpoint, and `best` means it. The last checkpoint is
    always kept, unless checkpointing is switched off. `made` is what was parsed, with instances of classes; `folder`
    is that of the run, or of the one that is tested, and None for a run that leaves nothing.
    """
    trainer = made.trainer
    given: list[Callback] = trainer.callbacks or []
    given = given if isinstance(given, list) else [given]
    saves = subcommand == "fit" and trainer.enable_checkpointing is not False
    ours: list[Callback] = []
    if trainer.enable_progress_bar is not False:
        ours.append(own.ProgressBar())
    if subcommand == "fit":
        ours += [own.MaxStepsCheckpointing(), own.RNGState(), own.RunSummary(folder), made.samples]
        if made.doctor and folder is not None:
            ours.append(own.Doctor(folder))
        if made.early_stopping is not None:
            ours.append(made.early_stopping)
        # A constant learning rate needs no curve.
        if logs and folder is not None and getattr(model, "optimization", {}).get("scheduler") != "none":
            ours.append(stock.LearningRateMonitor(logging_interval="epoch"))
    if subcommand in ("fit", "test"):
        tested = None if subcommand == "fit" else folder
        ours += [own.MetricIntervals(), own.MistakeGrid(tested), own.EmbeddingProjector(tested)]
    if subcommand == "predict":
        ours.append(own.PredictionWriter("predictions.csv"))
    # The best checkpoint comes before any other, so that "best" means it.
    best, last = ([made.checkpoint], [own.LastCheckpoint()]) if saves else ([], [])
    whole = [*ours, *best, *given, *last]
    chosen = [c for c in whole if c in given or not any(_replaces(other, c) for other in given)]
    for callback in chosen:
        if folder is not None and isinstance(callback, stock.ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / "checkpoints")  # whatever logs there
    return chosen


def _replaces(given: Callback, ours: Callback) -> bool:
    if type(given) is type(ours):
        return True
    if isinstance(given, stock.ModelCheckpoint):
        return isinstance(ours, own.BestCheckpoint) and given.monitor is not None
    return any(isinstance(given, kind) and isinstance(ours, kind) for kind in _KINDS)


def make_logger(
    settings: Any,  # noqa: ANN401  # of one logger or of several
    folder: Path,
    subcommand: str,
    model: LightningModule,
    make: Callable[[Namespace], Namespace],
) -> Any:  # noqa: ANN401  # what a Trainer takes: one logger or several
    """Return what logs: TensorBoard unless `settings`, of `--logger`, name something else; `make` instantiates it.

    It logs in the run's folder unless it was given another.
    """
    if settings in (None, True):
        traced = not model.hparams.get("compile")  # what is compiled cannot be traced
        # No name or version: the folder is the run's.
        return TensorBoardLogger(folder, "", "", log_graph=traced, default_hp_metric=False)
    try:
        return make(Namespace(trainer=Namespace(logger=_log_in(folder, settings, subcommand)))).trainer.logger
    except (ImportError, TypeError, ValueError) as error:
        raise ArgumentError(None, f"--logger: {error}") from error


def _log_in(folder: Path, settings: Any, subcommand: str) -> Any:  # noqa: ANN401  # one logger or several
    """Return the settings of loggers, with the run's folder for those that were given none."""
    if isinstance(settings, list):
        return [_log_in(folder, one, subcommand) for one in settings]
    settings = settings.clone()
    args = settings.get("init_args") or Namespace()
    if args.get("save_dir") == "":
        args.save_dir = str(folder)
        if settings.class_path.endswith((".CSVLogger", ".TensorBoardLogger")):
            args.name = "" if args.name == "lightning_logs" else args.name
            # A CSVLogger overwrites its file, which would be that of the training.
            apart = settings.class_path.endswith(".CSVLogger") and subcommand != "fit"
            args.version = (subcommand if apart else "") if args.version is None else args.version
    return settings
