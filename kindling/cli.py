"""The command line: `main` fits; it also validates, tests and predicts from a checkpoint."""

import itertools
import re
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch import callbacks as stock
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules import DataModule
from kindling.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    EmbeddingProjector,
    LastCheckpoint,
    MaxStepsCheckpointing,
    MistakeGrid,
    PredictionWriter,
    ProgressBar,
    RNGState,
    RunSummary,
    TextSamples,
    log_hyperparameters,
)
from kindling.checkpoints import Checkpoint, check_trusted, import_named, newest_checkpoint, read_checkpoint
from kindling.compatibility import init_args, link, load_data_state, prepare, without_inferred
from kindling.errors import (
    CROSS_VALIDATE,
    HELP,
    SUBCOMMANDS,
    TRAINER_FLAGS,
    USAGE,
    USER_ERRORS,
    explain,
    filter_warnings,
    is_mistake,
)
from kindling.runs import (
    is_first_process,
    new_folder,
    print_next_steps,
    remove_if_untrained,
    run_of,
    say_spread,
)
from lit_models import LitModule

DEFAULT_CLASSES = {
    "model": {"class_path": "lit_models.LitMLP"},
    "data": {"class_path": "datamodules.DigitsDataModule"},
}
NUM_FOLDS = 5  # of a cross-validation, unless --data.num_folds says otherwise
MAX_EPOCHS = 30  # unless --max_epochs, --max_steps or --max_time says otherwise

# The loader that reads what a subcommand uses.
LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


class KindlingCLI(LightningCLI):
    """LightningCLI with Kindling's defaults and links, run folders, and checkpoints that bring their settings along.

    Args:
        args: The command line, with a subcommand first.
        fold: In cross-validation, which fold is held out.
    """

    def __init__(self, args: list[str], fold: int | None = None) -> None:
        strict = {"exit_on_error": False, "allow_abbrev": False}
        self._folder: Path | None = None
        self._fold = fold
        self._saved = Checkpoint({}, "", None)
        try:
            super().__init__(
                args=args,
                seed_everything_default=0,
                trainer_defaults={"enable_model_summary": False},
                parser_kwargs={
                    **strict,
                    **{name: {**strict, "usage": USAGE, "description": HELP} for name in SUBCOMMANDS},
                },
                load_from_checkpoint_support=False,  # our models save plain arguments, and load without a parser
            )
        except (*USER_ERRORS, RuntimeError) as error:
            if is_mistake(error) and self._folder is not None:
                remove_if_untrained(self._folder)
            raise
        except (KeyboardInterrupt, SystemExit):
            # Interrupted before the first step, as while features are computed.
            if self._folder is not None and not self.summary.summary:
                remove_if_untrained(self._folder)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Leave out what is not for the user to say: checkpoints load with `weights_only=True`, always."""
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
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(TextSamples, "samples")
        parser.set_defaults(DEFAULT_CLASSES)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401  # Lightning's type
        """Parse with the defaults, among them the settings in a checkpoint, and without, to see what was given."""
        self.subcommand = args[0]
        path = _value_of("--ckpt_path", args)
        if path is not None:
            self._load_settings(path, args)
        self.config = parser.parse_args([arg for arg in args if not arg.startswith("--print_config")])
        config_path = self._config.ckpt_path
        if path is None and config_path is not None:  # it stood in a --config file
            self._load_settings(config_path, args)
        self._forget_other_classes()
        self.config = parser.parse_args(args)
        self.given = parser.parse_args(args, defaults=False)[self.subcommand]
        if config_path is not None:
            self._forget_encoding()
        if self.subcommand != "fit" and config_path is None:
            raise ArgumentError(
                None, f"{self.subcommand} needs a trained model: give --ckpt_path FILE{newest_checkpoint()}."
            )
        if self._fold is not None:
            self._hold_out(self._fold)
        self._resolve_optimizer("optimizer", {"lr", "momentum", "weight_decay"}, args)
        self._resolve_optimizer("lr_scheduler", set(), args)

    def _forget_encoding(self) -> None:
        """Drop a checkpoint's encoding where another file is read."""
        options, saved = init_args(self._config, "data"), self._saved.settings.get("data", {}).get("init_args", {})
        given = init_args(self.given, "data")
        moved = "path" in given and Path(given["path"] or "") != Path(saved.get("path") or "")
        if moved and options.get("encoding") is not None and "encoding" not in given:
            self._config.data.init_args.encoding = None

    def _forget_other_classes(self) -> None:
        """Drop the default classes where others were chosen, which would keep their values for options of one name."""
        defaults = {**DEFAULT_CLASSES, **self._saved.settings}
        chosen = {key: {"class_path": self._config[key].class_path} for key in DEFAULT_CLASSES}
        other = {key: value for key, value in chosen.items() if _name(value) != _name(defaults[key])}
        if other:
            self._parser(self.subcommand).set_defaults(other)

    def _hold_out(self, fold: int) -> None:
        """Take the place of `--data.fold`, and of `--data.num_folds` where it is not given."""
        options = self._config.data.init_args
        if "fold" not in options:
            raise ArgumentError(None, f"cross_validate: {self._config.data.class_path} knows no folds.")
        if "fold" in init_args(self.given, "data"):
            raise ArgumentError(None, "--data.fold: cross_validate holds out each fold in turn; leave it out.")
        options.fold, options.num_folds = fold, options.num_folds or NUM_FOLDS

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` did it, where Lightning would let the checkpoint beat explicit flags."""

    def _resolve_optimizer(self, group: str, settings: set[str], args: list[str]) -> None:
        """Let a group that came from a checkpoint give way to the model's own flag; refuse flags that a group hides."""
        own = group.removeprefix("lr_")
        if group not in self.given and own in init_args(self.given, "model"):
            self._config[group] = None
        hidden = [name for name in settings if _value_of(f"--model.{name}", args) is not None]
        if self._config[group] is not None and hidden:
            raise ArgumentError(
                None,
                f"--model.{hidden[0]}: --{group} {self._config[group].class_path.rpartition('.')[2]} is what trains "
                f"this model; give --{group}.{hidden[0]}.",
            )

    @property
    def _config(self) -> Namespace:
        config: Namespace = self.config[self.subcommand]
        return config

    def _load_settings(self, path: str, args: list[str]) -> None:
        """Make the settings in a checkpoint the defaults."""
        self._saved = read_checkpoint(path)
        check_trusted(self._saved, path, args)
        self._parser(self.subcommand).set_defaults(self._saved.settings)

    def instantiate_classes(self) -> None:
        """Make the data, let them say what the model needs to know, then make the model and the Trainer."""
        config, data = self._config, self._config.data
        import_named(init_args(self.given, "model"))
        prepare(config, self.given)
        self.datamodule = self._instantiate(Namespace(data=data)).data
        if config.ckpt_path is not None:
            load_data_state(self.datamodule, self._saved)
        link(self.datamodule, config, self.given)
        config.data = None
        self.config_init = Namespace({self.subcommand: self._instantiate(config)})
        config.data = data
        self.model = self._get(self.config_init, "model")
        if isinstance(self.model, LitModule) and self.subcommand == "fit" and config.ckpt_path is None:
            self.model.prepare_weights()
        if isinstance(self.datamodule, DataModule) and is_first_process():
            # Bad data are found before anything is written.
            stage = LOADERS[str(self.subcommand)]
            if getattr(self.datamodule, f"{stage}_dataloader")() == []:
                data = type(self.datamodule).__name__
                raise ArgumentError(None, f"{self.subcommand}: {data} has no {stage} split here; give other data.")
        if isinstance(self.model, LitModule):
            for group in ("optimizer", "lr_scheduler"):
                if config[group] is not None:
                    setattr(self.model, f"{group}_config", config[group].as_dict())
        else:
            self._add_configure_optimizers_method_to_model(self.subcommand)
        self.trainer = self.instantiate_trainer()

    def _instantiate(self, config: Namespace) -> Namespace:
        whole = Namespace({"subcommand": self.subcommand, self.subcommand: config})
        try:
            made: Namespace = self.parser.instantiate(whole)[self.subcommand]
        except ValueError as error:  # jsonargparse wraps what a constructor raises
            raise (error if isinstance(error, USER_ERRORS) else error.__cause__ or error) from None
        return made

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with a folder for the run and the callbacks of every run."""
        config = self._config.trainer
        quick, fits = bool(config.fast_dev_run), self.subcommand == "fit"
        if config.overfit_batches and isinstance(self.datamodule, DataModule):
            raise ArgumentError(
                None,
                "--overfit_batches: Lightning would take the batches apart; give --limit_train_batches and "
                "--limit_val_batches instead.",
            )
        if config.max_epochs is None and config.max_steps == -1 and config.max_time is None:
            config.max_epochs = kwargs["max_epochs"] = MAX_EPOCHS
        own = self._get(self.config_init, "trainer").callbacks or []
        own = own if isinstance(own, list) else [own]
        callbacks: list[Callback] = []
        if config.enable_progress_bar is not False and not any(isinstance(c, stock.ProgressBar) for c in own):
            callbacks.append(ProgressBar())
        if fits:
            self.summary = RunSummary()
            early_stopping, samples = (self._get(self.config_init, name) for name in ("early_stopping", "samples"))
            callbacks += [early_stopping, MaxStepsCheckpointing(), RNGState(), self.summary, samples]
        if fits and config.enable_checkpointing is not False:
            callbacks += [self._get(self.config_init, "checkpoint"), LastCheckpoint()]
        if self.subcommand in ("fit", "test"):
            # What a test finds goes to the curves of the run that it tests.
            tested = None if fits or config.logger is False else run_of(self._config.ckpt_path)
            callbacks += [MistakeGrid(tested), EmbeddingProjector(tested)]
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter("predictions.csv"))
        if not fits:
            kwargs["logger"] = config.logger or False
        elif not quick:
            folder = new_folder(
                Path(config.default_root_dir or "runs"), f"{type(self.model).__name__}-{type(self.datamodule).__name__}"
            )
            self._folder, kwargs["default_root_dir"] = folder, str(folder)
            if config.logger in (None, True):
                # No name or version: the folder is the run's, whatever logs there. What is compiled cannot be traced.
                traced = not self.model.hparams.get("compile")
                kwargs["logger"] = TensorBoardLogger(folder, "", "", log_graph=traced, default_hp_metric=False)
            # A constant learning rate needs no curve.
            if config.logger is not False and getattr(self.model, "optimization", {}).get("scheduler") != "none":
                callbacks.append(LearningRateMonitor(logging_interval="epoch"))
            if is_first_process():
                self._parser(self.subcommand).save(without_inferred(self._config, self.given), folder / "config.yaml")
        # The best checkpoint comes before any other, so that "best" means it.
        kwargs["callbacks"] = [*callbacks, *own]
        try:
            return Trainer(**{**self._get(self.config_init, "trainer").as_dict(), **kwargs})
        except ValueError as error:  # a value that only the Trainer knows to be impossible
            raise ArgumentError(None, str(error)) from error

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}
        return {**kwargs, "return_predictions": False} if subcommand == "predict" else kwargs

    def after_fit(self) -> None:
        """Test the best checkpoint, and say where everything is."""
        trainer = self.trainer
        if self._config.trainer.fast_dev_run:
            return
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        tests = is_overridden("test_step", self.model) and is_overridden("test_dataloader", self.datamodule)
        if tests and (not isinstance(self.datamodule, DataModule) or "test" in self.datamodule.splits):
            trainer.test(self.model, self.datamodule, ckpt_path=best or None, verbose=False, weights_only=True)
        else:
            log_hyperparameters(trainer, self.model)
        if trainer.is_global_zero and self._fold is None:
            print_next_steps(trainer, best)


def _value_of(flag: str, args: list[str]) -> str | None:
    """Find the value of a flag, given as `--flag value` or `--flag=value`; the last one counts."""
    values = [value for name, value in itertools.pairwise(args) if name == flag]
    values += [arg.removeprefix(f"{flag}=") for arg in args if arg.startswith(f"{flag}=")]
    return values[-1] if values else None


def _name(config: dict[str, Any]) -> str:
    return str(config["class_path"]).rpartition(".")[2]


def expand(args: list[str]) -> list[str]:
    """Spell a command line out: the subcommand, which is `fit` if none is given, and `trainer.` in Trainer flags."""
    if not args or args[0].startswith("-"):
        args = ["fit", *args]
    name = re.compile(r"--(\w+)(?=[.=+]|$)")
    return [f"--trainer.{arg[2:]}" if (match := name.match(arg)) and match[1] in TRAINER_FLAGS else arg for arg in args]


def cross_validate(args: list[str]) -> KindlingCLI:
    """Fit once for every fold, and print the mean and the spread of what each is measured by.

    Args:
        args: The arguments after `cross_validate`.

    Returns:
        The last fold's command.
    """
    measured: list[dict[str, float]] = []
    while True:
        cli = KindlingCLI(["fit", *args], fold=len(measured))
        # The fold is the test split, or the validation split where the data have a test split of their own.
        measured.append(cli.summary.summary.get("test" if cli.datamodule.tests_fold else "best", {}))
        num_folds = cli.datamodule.num_folds
        if is_first_process():
            print(f"fold {len(measured)} of {num_folds}:", *(f"{k} {v:.4g}" for k, v in measured[-1].items()), sep="  ")
        if len(measured) == num_folds:
            say_spread(measured)
            return cli


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
    debug = "--debug" in args
    if not debug:
        filter_warnings()
    try:
        args = expand([arg for arg in args if arg != "--debug"])
        return cross_validate(args[1:]) if args[0] == CROSS_VALIDATE else KindlingCLI(args)
    except (*USER_ERRORS, RuntimeError) as error:
        if debug or not is_mistake(error):
            raise
        print(f"train.py: {explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # while data are read; later Lightning takes care of it
        print("train.py: interrupted before anything was trained or written.", file=sys.stderr)
        raise SystemExit(130) from None
