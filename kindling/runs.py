"""Where runs live, `runs/<Model>-<Data>/version_N/`, and what they left there."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentError
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from kindling.answer import with_intervals
from kindling.intervals import Interval


def program() -> str:
    """Return the name of the program that runs: `kindling`, or else `train.py`."""
    return "kindling" if Path(sys.argv[0]).stem == "kindling" else "train.py"


def command() -> str:
    """Return how the program that runs is started."""
    return "kindling" if program() == "kindling" else "python train.py"


def print_next_steps(
    trainer: Trainer, best: str, intervals: Mapping[str, Interval] | None = None, compared: Sequence[str] = ()
) -> None:
    """Print what a finished run reached, with intervals and what it is compared with, and the commands that go on."""
    checkpoint = trainer.checkpoint_callback
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "test_" in name}
    test = with_intervals(metrics, intervals or {})
    if best and isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
        print(f"best {checkpoint.monitor} {float(checkpoint.best_model_score):.4g}", *test, sep="  ")
    elif test:
        print(*test, sep="  ")
    print(*compared, sep="\n", end="\n" * bool(compared))
    folder = Path(trainer.default_root_dir)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logdir = folder.parent.parent if Path(logger.log_dir) == folder else logger.save_dir
            print(f"  curves   tensorboard --logdir {logdir}")
        elif isinstance(logger, CSVLogger):
            print(f"  curves   {Path(logger.log_dir) / 'metrics.csv'}")
    if checkpoint is not None:
        path = Path(best or folder / "checkpoints" / "last.ckpt")
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        check = "test" if test else "validate"
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        from kindling.checkpoints import trust_flags  # which imports the callbacks, which import this

        trusted = trust_flags(str(path))
        print(f"  {check:<8} {command()} {check} --ckpt_path {path}{trusted}")
        prompts = " --data.path prompts.txt" if getattr(data, "task", "") == "next_token" else ""
        print(f"  predict  {command()} predict --ckpt_path {path}{prompts}{trusted}")


def new_folder(root: Path, name: str) -> Path:
    """Create the folder of a new run, `root/name/version_N`; the processes of a distributed run share one."""
    try:
        (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(None, f"--default_root_dir {root}: no folder can be made there ({error}).") from error
    taken = [re.fullmatch(r"version_(\d+)", path.name) for path in (root / name).iterdir()]
    version = max((int(match[1]) for match in taken if match), default=-1)
    while is_first_process():
        version += 1
        try:
            (root / name / f"version_{version}").mkdir()
            break
        except FileExistsError:  # another run was faster
            continue
    return root / name / f"version_{version}"


def remove_if_untrained(folder: Path) -> None:
    """Remove the folder of a run that ended by a mistake before there was anything to keep."""
    if is_first_process() and not list(folder.rglob("*.ckpt")):
        shutil.rmtree(folder)
        for parent in (folder.parent, folder.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()


def run_of(checkpoint: str) -> Path | None:
    """Find the folder of the run that left a checkpoint; None if the checkpoint is elsewhere now."""
    folder = Path(checkpoint).parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that writes, or the only one there is."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # Lightning sets it on the function
