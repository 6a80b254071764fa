"""The command line: `main` fits; it also validates, tests and predicts from a checkpoint."""

import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules import DataModule
from kindling.answer import entries, table, verdict, with_intervals
from kindling.arguments import CROSS_VALIDATE, SUBCOMMANDS, expand, peek
from kindling.baselines import measure
from kindling.callbacks import BestCheckpoint, Doctor, EarlyStopping, MetricIntervals, RunSummary, TextSamples
from kindling.callbacks.summary import log_hyperparameters
from kindling.checkpoints import Checkpoint, find_checkpoint, import_named, newest_checkpoint, read_trusted
from kindling.compatibility import choose, hold_out, init_args, link, load_data_state, prepare, without_inferred
from kindling.cross_validation import cross_validate
from kindling.errors import USER_ERRORS, explain, filter_warnings, is_mistake, show_messages
from kindling.help import USAGE, description, short_help
from kindling.optimizers import GROUPS, resolve_groups, try_optimizer
from kindling.runs import is_first_process, new_folder, print_next_steps, program, remove_if_untrained, run_of
from kindling.trainer import check_data, make_callbacks, make_logger, one_device
from lit_models import LitModule
from lit_models.base import MAX_EPOCHS

CLASSES = {"model": {"class_path": "lit_models.LitMLP"}, "data": {"class_path": "datamodules.DigitsDataModule"}}
NEWEST = ("best", "last")  # what `--ckpt_path` may name instead of a file
SWITCHES = {
    "baselines": "Whether simple models are fitted after the test, on the same split, to be compared with.",
    "doctor": "Whether data are checked before the first step for what makes results wrong.",
}
BASELINES, LABELS = 0.8, 0.2  # of the seconds of a fit, that baselines and the check of labels may take


class KindlingCLI(LightningCLI):
    """LightningCLI with Kindling's defaults and links, run folders, and checkpoints that bring their settings along.

    Args:
        args: The command line, with a subcommand first.
        fold: In cross-validation, which fold is held out.
    """

    def __init__(self, args: list[str], fold: int | None = None) -> None:
        strict = {"exit_on_error": False, "allow_abbrev": False}
        usage, text = USAGE.format(program=program()), description()
        self._folder: Path | None = None
        self._fold = fold
        self._saved = Checkpoint({}, "", None)
        self._defaults: dict[str, Any] = CLASSES
        self.summary, self.intervals = RunSummary(), MetricIntervals()
        try:
            super().__init__(
                args=args,
                seed_everything_default=0,
                trainer_defaults={"enable_model_summary": False},
                parser_kwargs=strict | {name: {**strict, "usage": usage, "description": text} for name in SUBCOMMANDS},
                load_from_checkpoint_support=False,  # our models save plain arguments, and load without a parser
            )
        except BaseException as error:
            # Interrupted before the first step, as while features are computed.
            idle = isinstance(error, KeyboardInterrupt | SystemExit) and not self.summary.summary
            if self._folder is not None and (idle or is_mistake(error)):
                remove_if_untrained(self._folder)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the arguments that have no flag: checkpoints load with `weights_only=True`, always."""
        skipped = LightningCLI.subcommands()
        return {name: {*skipped[name], "weights_only", "return_predictions"} for name in SUBCOMMANDS}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Trainer, model and data; the latter two can be any class, by name or by path."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        # They are not required, so that a command line can also be parsed without the defaults.
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that have flags, and name the default model and data."""
        # A class that may be null: `--early_stopping null` turns it off.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping", subclass_mode=True, required=False)
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(TextSamples, "samples")
        for name, what in SWITCHES.items():
            parser.add_argument(f"--{name}", type=bool, default=True, help=what)
        parser.set_defaults({**CLASSES, "early_stopping": {"class_path": "kindling.callbacks.EarlyStopping"}})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401  # Lightning's type
        """Parse with the defaults, among them the settings in a checkpoint, and without, to see what was given."""
        self.subcommand, given = args[0], peek(args)
        config_path = given.get("ckpt_path")
        if config_path in NEWEST:
            run = "-".join(_name(given[key]) if "class_path" in given[key] else "*" for key in CLASSES)
            root = (given.get("trainer") or {}).get("default_root_dir") or "runs"
            config_path = find_checkpoint(config_path, Path(root), run)
        if self.subcommand in SUBCOMMANDS:  # or else the parser says what is wrong
            self._choose_classes(given, config_path, args)
        self.config = parser.parse_args([arg for arg in args if not arg.startswith("--print_config")])
        self._forget_other_classes()
        self.config = parser.parse_args(args)
        self._config.ckpt_path = config_path
        self.given = parser.parse_args(args, defaults=False)[self.subcommand]
        if config_path is not None:
            self._forget_encoding()
        if self.subcommand != "fit" and config_path is None:
            remedy = f"give --ckpt_path FILE{newest_checkpoint()}"
            raise ArgumentError(None, f"{self.subcommand} needs a trained model: {remedy}.")
        if self._fold is not None:
            hold_out(self._fold, self._config, self.given)
        resolve_groups(self._config, self.given, args)

    def _choose_classes(self, given: dict[str, Any], checkpoint: str | None, args: list[str]) -> None:
        """Make the settings in a checkpoint the defaults, and what follows where it and the user name no class."""
        if checkpoint is not None:
            self._saved = read_trusted(checkpoint, args)
        settings = self._saved.settings
        trained = {key: settings[key] for key in CLASSES if key in settings and "class_path" not in given[key]}
        chosen, lines = choose({**given, **trained}, args[0])
        self._defaults = {**CLASSES, **chosen, **settings}
        is_quiet = self._fold or any(arg.startswith("--print_config") for arg in args)
        if lines and is_first_process() and not is_quiet:
            print("\n".join(lines))
        self._parser(self.subcommand).set_defaults(self._defaults)

    def _forget_encoding(self) -> None:
        """Drop a checkpoint's encoding where another file is read."""
        options, given = init_args(self._config, "data"), init_args(self.given, "data")
        trained_on = self._saved.settings.get("data", {}).get("init_args", {}).get("path")
        moved = "path" in given and Path(given["path"] or "") != Path(trained_on or "")
        if moved and options.get("encoding") is not None and "encoding" not in given:
            self._config.data.init_args.encoding = None

    def _forget_other_classes(self) -> None:
        """Drop the default classes where others were chosen, which would keep their values for options of one name."""
        chosen = {key: {"class_path": self._config[key].class_path} for key in CLASSES}
        other = {key: value for key, value in chosen.items() if _name(value) != _name(self._defaults[key])}
        if other:
            self._parser(self.subcommand).set_defaults(other)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` did it, where Lightning would let the checkpoint beat explicit flags."""

    @property
    def _config(self) -> Namespace:
        config: Namespace = self.config[self.subcommand]
        return config

    def instantiate_classes(self) -> None:
        """Create the data module, link its sizes to the model, then create the model and the Trainer."""
        config, data = self._config, self._config.data
        import_named(init_args(self.given, "model"))
        prepare(config, self.given)
        self.datamodule = self._instantiate(Namespace(data=data)).data
        if config.ckpt_path is not None:
            load_data_state(self.datamodule, self._saved)
        link(self.datamodule, config, self.given)
        logger, config.data, config.trainer.logger = config.trainer.logger, None, None  # loggers wait for the folder
        self.config_init = Namespace({self.subcommand: self._instantiate(config)})
        config.data, config.trainer.logger = data, logger
        self.model = self._get(self.config_init, "model")
        if isinstance(self.model, LitModule) and self.subcommand == "fit" and config.ckpt_path is None:
            self.model.prepare_weights()
        if isinstance(self.datamodule, DataModule) and is_first_process():
            # Bad data are found before anything is written.
            check_data(self.datamodule, str(self.subcommand), bool(config.trainer.overfit_batches))
        if isinstance(self.model, LitModule):
            for group in GROUPS:
                if config[group] is not None:
                    setattr(self.model, f"{group}_config", config[group].as_dict())
            if self.subcommand == "fit" and (config.optimizer or config.lr_scheduler):
                try_optimizer(self.model, self.given)
        else:
            self._add_configure_optimizers_method_to_model(self.subcommand)
        self.trainer = self.instantiate_trainer()

    def _instantiate(self, config: Namespace) -> Namespace:
        whole = Namespace({"subcommand": self.subcommand, self.subcommand: config})
        try:
            made: Namespace = self.parser.instantiate(whole)[self.subcommand]
        except ValueError as error:  # jsonargparse wraps what a constructor raises
            raised: BaseException = error
            while raised.__cause__ is not None and _is_of_parser(raised) and not isinstance(raised, USER_ERRORS):
                raised = raised.__cause__
            raise raised from raised.__cause__
        return made

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer, with a folder for the run and the callbacks of every run."""
        config, made, subcommand = self._config.trainer, self.config_init[self.subcommand], str(self.subcommand)
        fits, root = subcommand == "fit", Path(config.default_root_dir or "runs")
        if config.max_epochs is None and config.max_steps == -1 and config.max_time is None:
            config.max_epochs = kwargs["max_epochs"] = self._default_max_epochs() if fits else 1
        logs = config.logger is not False and (fits or config.logger is not None)
        if one_device(self.datamodule, subcommand, config):
            kwargs["devices"] = 1  # not in config.yaml, which goes with other data too
        # What a test finds goes to the curves of the run that it tests.
        folder = None if fits or config.logger is False else run_of(self._config.ckpt_path)
        if not config.fast_dev_run and (fits or (logs and folder is None)):
            folder = new_folder(root, f"{type(self.model).__name__}-{type(self.datamodule).__name__}")
            self._folder, kwargs["default_root_dir"] = folder, str(folder)
        made.doctor = made.doctor and self._fold in (None, 0)  # the data are the same in all folds
        callbacks = make_callbacks(subcommand, made, self.model, folder, logs)
        self.intervals = next((found for found in callbacks if isinstance(found, MetricIntervals)), self.intervals)
        self.doctor = next((found for found in callbacks if isinstance(found, Doctor)), None)
        if fits:
            self.summary = next(callback for callback in callbacks if isinstance(callback, RunSummary))
        if fits and folder is not None and is_first_process():
            self._parser(subcommand).save(without_inferred(self._config, self.given), folder / "config.yaml")
            if self._config.early_stopping is None:  # `save` leaves out what is null
                with (folder / "config.yaml").open("a") as file:
                    file.write("early_stopping: null\n")
        logger: Any = logs and fits
        if logs and folder is not None:
            logger = make_logger(config.logger, folder, subcommand, self.model, self._instantiate)
        try:
            return Trainer(**{**made.trainer.as_dict(), "callbacks": callbacks, "logger": logger, **kwargs})
        except (RuntimeError, TypeError, ValueError) as error:  # a value that only the Trainer knows to be impossible
            raise MisconfigurationException(str(error)) from error

    def _default_max_epochs(self) -> int:
        model, data = self.model, self.datamodule
        size = data.splits["train"].size if isinstance(data, DataModule) else 0
        return model.default_max_epochs(size) if isinstance(model, LitModule) else MAX_EPOCHS

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}
        return {**kwargs, "return_predictions": False} if subcommand == "predict" else kwargs

    def after_fit(self) -> None:
        """Test the best checkpoint, and print where everything is."""
        trainer = self.trainer
        if self._config.trainer.fast_dev_run:
            return
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        tests = is_overridden("test_step", self.model) and is_overridden("test_dataloader", self.datamodule)
        if tests and (not isinstance(self.datamodule, DataModule) or "test" in self.datamodule.splits):
            trainer.test(self.model, self.datamodule, ckpt_path=best or None, verbose=False, weights_only=True)
        else:
            log_hyperparameters(trainer, self.model)
        if trainer.is_global_zero:
            compared, answer = self._compare()
            seconds = LABELS * self.summary.summary.get("seconds", 0.0)
            compared += [] if self.doctor is None else self.doctor.check_labels(self.datamodule, seconds)
            if self._fold is None:
                print_next_steps(trainer, best, self.intervals.intervals, compared)
                print(*answer, sep="\n", end="\n" * bool(answer))

    def _compare(self) -> tuple[list[str], list[str]]:
        """Add intervals and baselines to the summary; return what is said beside the metrics, and at the end."""
        measured, config, trainer = self.intervals, self._config, self.trainer
        if measured.outcome is None:
            return [], []
        self.summary.add(trainer, test_intervals=measured.intervals)
        is_trial = config.trainer.overfit_batches or not config.baselines
        if is_trial or not isinstance(self.datamodule, DataModule):
            return [], []
        if measured.rows is None:
            return ["  no baselines, as the table is streamed"], []
        seconds = BASELINES * self.summary.summary.get("seconds", 0.0)
        found, left_out = measure(self.datamodule, measured.outcome, measured.rows, seconds)
        names = [name for name in trainer.callback_metrics if name.startswith("test_")]
        self.summary.add(trainer, baselines=entries(found, names))
        return table(found, left_out, names), verdict(measured.outcome, found)

    def after_test(self) -> None:
        """Print the metrics with their intervals."""
        found = self.intervals.intervals
        if found and self.trainer.is_global_zero:
            metrics = {name: float(self.trainer.callback_metrics[name]) for name in found}
            print("with 95 % intervals:", *with_intervals(metrics, found), sep="  ")


def _is_of_parser(error: BaseException) -> bool:
    return str([*traceback.walk_tb(error.__traceback__)][-1][0].f_globals["__name__"]).startswith("jsonargparse")


def _name(config: Any) -> str:  # noqa: ANN401  # a dict or a Namespace
    return str(config["class_path"]).rpartition(".")[2]


def main(args: list[str] | None = None) -> KindlingCLI:
    """Run a command line.

    Args:
        args: The arguments after `train.py`; by default those of this process.

    Returns:
        The finished command, with its `model`, `datamodule` and `trainer`.

    Raises:
        SystemExit: With status 2 and one line on standard error, if something is to be mended by the user.
    """
    args = sys.argv[1:] if args is None else args
    debug, args = "--debug" in args, [arg for arg in args if arg != "--debug"]
    if not debug:
        filter_warnings()
    show_messages()
    # Adam's averages of embeddings that are seldom trained fade to subnormal numbers, which are slow on a CPU: a text
    # classifier took 2.2 times as long. It is set before torch starts its threads, which inherit it.
    torch.set_flush_denormal(True)
    try:
        if args in (["--help"], ["-h"]):
            print(short_help())
            raise SystemExit(0)
        args = expand(args)
        if args[0] == CROSS_VALIDATE:
            return cross_validate(lambda fold: KindlingCLI(["fit", *args[1:]], fold))
        return KindlingCLI(args)
    except Exception as error:
        if debug or not is_mistake(error):
            raise
        print(f"{program()}: {explain(error, args)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # while data are read; later Lightning takes care of it
        print(f"{program()}: interrupted before anything was trained or written.", file=sys.stderr)
        raise SystemExit(130) from None


def script() -> None:
    """Run the command line of this process, as the console script `kindling`."""
    main()
