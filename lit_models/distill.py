"""Distillation: a small model learns from the predictions of a large one that was trained before."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lit_models.addresses import find_class
from lit_models.base import Batch, LitModule
from lit_models.errors import ModelError
from lit_models.metrics import MeanLoss
from lit_models.teacher import check_encoding, check_model
from lit_models.wrapper import LitWrapper


class LitDistiller(LitWrapper):
    """A student that learns from a teacher's logits as well as from the labels (Hinton et al. 2015).

    The training loss is `alpha * T**2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss of the
    labels`; validation and test measure the student by the labels alone. In a binary task the logits are 0 and z.
    Samples whose label is ignored learn from the teacher alone.

    The teacher is loaded when fitting starts, is frozen, and is no part of this model: its weights are neither among
    the parameters nor in checkpoints and exported graphs. If the data are not augmented, its logits are computed once;
    otherwise in every step.

    Args:
        teacher: A checkpoint of a classifier that was trained on data like these.
        student: The model that learns: a class of `lit_models`, or the import path of another.
        student_args: The student's own options, such as `hidden` and `dropout`; those of training are options here.
        temperature: Divisor of both models' logits: the higher, the more the unlikely classes count.
        alpha: Share of the teacher in the loss, 0 to 1; the labels have the rest.
        teacher_class: Import path of the teacher's class, if it is none of `lit_models`: no other class is imported
            because a file names it.
        kwargs: Options of `LitWrapper` and `LitModule`.

    Raises:
        ModelError: If an option is impossible, or the task is no classification.
    """

    inner_option = "student"

    def __init__(
        self,
        teacher: str | None = None,
        student: str = "LitMLP",
        student_args: dict[str, Any] | None = None,
        temperature: float = 4.0,
        alpha: float = 0.9,
        teacher_class: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.task.name not in ("binary", "multiclass"):
            raise ModelError("LitDistiller is for classification", "give data with classes", "task", self.task.name)
        if temperature <= 0:
            raise ModelError("give more than 0", option="temperature", value=temperature)
        if not 0 <= alpha <= 1:
            raise ModelError("give a share from 0 to 1", option="alpha", value=alpha)
        self.temperature, self.alpha = temperature, alpha
        self.make_inner(student, student_args, self.task.name, self.num_outputs)
        self.divergence = nn.KLDivLoss(reduction="sum" if self.hparams["reduction"] == "sum" else "batchmean")
        self._teachers: list[LitModule] = []  # one, in a list, so that torch does not register it as a submodule

    def setup(self, stage: str) -> None:
        """Load the teacher when fitting starts."""
        if stage == "fit":
            self._teachers = [self.load_teacher()]
        super().setup(stage)

    def teardown(self, stage: str) -> None:
        """Release the teacher."""
        self._teachers = []

    def load_teacher(self) -> LitModule:
        """Load the teacher from its checkpoint: frozen, in evaluation mode, on the CPU.

        Raises:
            ModelError: If there is none, or it does not know these classes or inputs.
        """
        file = self.hparams["teacher"]
        if file is None:
            raise ModelError("a student learns from a trained classifier", "give its checkpoint", "teacher")
        if not Path(file).expanduser().is_file():
            raise ModelError("there is no such file", "give the checkpoint of a trained classifier", "teacher", file)
        path = str(Path(file).expanduser())
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            class_path = str(checkpoint["class_path"])
        except Exception as error:  # unpickling a file of another kind may raise anything
            problem = "it is no checkpoint of Kindling's"
            raise ModelError(problem, "give a best.ckpt or last.ckpt of a run", "teacher", file) from error
        cls = self._teacher_class(file, class_path)
        try:
            teacher = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        except (RuntimeError, TypeError, KeyError) as error:
            problem = f"no {cls.__name__} can be made of it ({' '.join(str(error).split())[:100]})"
            raise ModelError(problem, "give another", "teacher", file) from error
        check_model(file, teacher, self.task, self.sizes)
        check_encoding(file, checkpoint, getattr(self._trainer, "datamodule", None))
        return teacher.eval().requires_grad_(False)

    def _teacher_class(self, file: str, class_path: str) -> type[LitModule]:
        given = self.hparams["teacher_class"]
        cls = find_class(class_path, LitModule)
        if cls is None or (cls.__module__.partition(".")[0] != __package__ and class_path != given):
            remedy = f"give `teacher_class={class_path}` and import it if you trust it"
            raise ModelError(f"it is a {class_path}, which would be run here", remedy, "teacher", file)
        return cls

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Move the teacher to the device, and compute its logits for all samples if they stay the same."""
        trainer = self.trainer
        for teacher in self._teachers:
            teacher.to(self.device, next(self.parameters()).dtype)
        annotate = getattr(trainer.datamodule, "annotate", None)  # type: ignore[attr-defined]  # Lightning gives no type
        limit = trainer.limit_train_batches  # 1.0 is all, 1 is one batch
        if annotate is not None and isinstance(limit, float) and limit == 1 and self.alpha:
            with trainer.precision_plugin.forward_context():
                annotate(self.teacher_logits, self.device)
        return super().configure_optimizers()

    @torch.no_grad()
    def teacher_logits(self, x: Tensor) -> Tensor:
        """Compute the teacher's logits, `(B, num_outputs)`, from raw inputs."""
        logits: Tensor = self._teachers[0](x)
        return logits

    def training_step(self, batch: Batch | tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of a batch, a scalar; the third item of a batch, if any, is the teacher's logits."""
        x, y, *computed = batch
        hard, logits, y = self._shared_step((x, y), MeanLoss())
        loss = (1 - self.alpha) * hard
        if self.alpha:
            loss = loss + self.alpha * self.soft_loss(logits, computed[0] if computed else self.teacher_logits(x))
        terms = self.task.num_terms(logits, y) if self.hparams["reduction"] == "sum" else 1
        self.train_loss.update(loss.detach() / terms, self.task.num_samples(y))
        return loss

    def soft_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the divergence of a student's predictions from the teacher's, at the temperature.

        Args:
            logits: Shape `(B, num_outputs)`; of an ensemble `(B * k, num_outputs)`, the `k` of a sample in succession.
            targets: The teacher's logits, `(B, num_outputs)`.

        Returns:
            The divergence times `T**2`, which keeps the size of its gradient: a mean or sum, as the loss of the labels.
        """
        if len(logits) > len(targets):
            targets = targets.repeat_interleave(len(logits) // len(targets), dim=0)
        student, teacher = (_of_all_classes(of.to(logits)) / self.temperature for of in (logits, targets))
        divergence: Tensor = self.divergence(F.log_softmax(student, 1), F.softmax(teacher, 1))
        return divergence * self.temperature**2


def _of_all_classes(logits: Tensor) -> Tensor:
    """Return the logits of both classes of a binary task, of which one is 0; others unchanged."""
    return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits
