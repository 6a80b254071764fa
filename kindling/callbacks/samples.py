"""What a language model writes while it learns."""

import html
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from datamodules import DataError

SEED = 0  # of each sample, so that what changes is the model


class TextSamples(Callback):
    """Has a language model go on with prompts after each validation and at the end, where the first is printed.

    TensorBoard shows all of them. Models that cannot generate, and data that cannot encode a text, are left alone.

    Args:
        prompts: What to begin with, one text or several, encoded and decoded by the data; by default a new line.
        length: How many tokens to write.

    Raises:
        MisconfigurationException: If that is none.
    """

    def __init__(self, prompts: Sequence[str] | str = (), length: int = 200) -> None:
        if length < 1:
            raise MisconfigurationException(f"--samples.length {length}: give a number of tokens, 1 or more.")
        self.prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        self.length = length
        self._begun: list[tuple[str, torch.Tensor]] = []  # prompts as texts and as tokens, `(T,)`
        self._samples: list[str] = []
        self._step = -1  # at which they were written

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Encode the prompts: what is wrong with one is found before training."""
        if stage != "fit":
            return
        self._begun, self._samples, self._step = [], [], -1
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        if not (hasattr(pl_module, "generate") and hasattr(data, "default_prompt")):
            return
        for prompt in self.prompts or [data.default_prompt]:
            try:
                self._begun.append((prompt, data.encode(prompt)))
            except DataError as error:
                raise DataError(f"--samples.prompts: {error.problem}", error.remedy) from error

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the model is capable of now."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the first sample of the trained model."""
        self._write(trainer, pl_module)
        if self._samples:
            print(f"sample after {trainer.global_step:,} steps:\n{self._samples[0]}")

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A model whose parameters are divided among processes writes nothing: all of them would have to take part.
        whole = trainer.world_size == 1 or type(trainer.strategy) is DDPStrategy
        if not (self._begun and whole and trainer.is_global_zero) or self._step == trainer.global_step:
            return
        self._step = trainer.global_step
        self._samples = self._generate(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, sample in enumerate(self._samples):
                    logger.experiment.add_text(f"samples/{number}", as_written(sample), trainer.global_step)

    def _generate(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        model: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        texts = []
        for prompt, ids in self._begun:
            generator = torch.Generator(pl_module.device).manual_seed(SEED)
            try:
                new = model.generate(ids[None].to(pl_module.device), self.length, generator=generator)
            except FloatingPointError:  # the model has diverged; early stopping says so, and ends the training
                return []
            texts.append(prompt + data.decode(new.cpu())["prediction"][0])
        return texts


def as_written(text: str) -> str:
    """Give the Markdown that shows a text as it is written, whatever signs are in it."""
    # TensorBoard, and then the browser, take a line break after the tag for none of the text.
    return f"<pre>\n\n{html.escape(text, quote=False)}</pre>"
