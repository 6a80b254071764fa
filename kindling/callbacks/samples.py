"""Texts that a language model generates while it is trained."""

import html
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from datamodules import DataError

SEED = 0  # of each sample, so that samples differ only by the model


class TextSamples(Callback):
    """Logs to TensorBoard how a language model continues prompts, after each validation and at the end of training.

    The first one is also printed at the end. Models without `generate` and data without prompts are skipped.

    Args:
        prompts: One text or several, encoded and decoded by the data module; by default a new line.
        length: How many tokens to generate.

    Raises:
        MisconfigurationException: If `length` is less than 1.
    """

    def __init__(self, prompts: Sequence[str] | str = (), length: int = 200) -> None:
        if length < 1:
            raise MisconfigurationException(f"--samples.length {length}: give a number of tokens, 1 or more.")
        self.prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        self.length = length

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Encode the prompts, so that a bad one is found before training."""
        if stage != "fit":
            return
        self._prompts: list[tuple[str, torch.Tensor]] = []  # texts, and their tokens, `(T,)`
        self._samples: list[str] = []
        self._step = -1  # at which the samples were generated
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        if not (hasattr(pl_module, "generate") and hasattr(data, "default_prompt")):
            return
        for prompt in self.prompts or [data.default_prompt]:
            try:
                self._prompts.append((prompt, data.encode(prompt)))
            except DataError as error:
                raise DataError(f"--samples.prompts: {error.problem}", error.remedy) from error

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the samples of the model as it is now."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the first sample of the trained model."""
        self._write(trainer, pl_module)
        if self._samples:
            print(f"sample after {trainer.global_step:,} steps:\n{self._samples[0]}")

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # With sharded parameters nothing is generated: all processes would have to take part.
        whole = trainer.world_size == 1 or type(trainer.strategy) is DDPStrategy
        if not (self._prompts and whole and trainer.is_global_zero) or self._step == trainer.global_step:
            return
        self._step = trainer.global_step
        self._samples = self._generate(trainer.datamodule, pl_module)  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, sample in enumerate(self._samples):
                    logger.experiment.add_text(f"samples/{number}", preformatted(sample), trainer.global_step)

    def _generate(self, data: Any, model: Any) -> list[str]:  # noqa: ANN401  # whatever has `decode` and `generate`
        texts = []
        for prompt, ids in self._prompts:
            generator = torch.Generator(model.device).manual_seed(SEED)
            try:
                new = model.generate(ids[None].to(model.device), self.length, generator=generator)
            except FloatingPointError:  # the model has diverged; early stopping reports it and ends the training
                return []
            texts.append(prompt + data.decode(new.cpu())["prediction"][0])
        return texts


def preformatted(text: str) -> str:
    """Return Markdown that TensorBoard shows as the given text, character by character."""
    # TensorBoard, and then the browser, drop one line break each after the tag.
    return f"<pre>\n\n{html.escape(text, quote=False)}</pre>"
