"""Distillation: a small model learns from the predictions of a large one that was trained before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lit_models.base import Batch, LitModule
from lit_models.errors import ModelError
from lit_models.metrics import MeanLoss
from lit_models.optim.factory import find_class
from lit_models.tasks import Task
from lit_models.wrapper import LitWrapper

# Keys of a data module's state in a checkpoint that do not change how inputs are encoded.
NO_ENCODING = ("class_path", "statistics", "settings", "epoch", "batch", "trained_on", "asked", "class_names")
REMEDY = "give one that was trained on data like these"


class LitDistiller(LitWrapper):
    """A student that learns from a teacher's logits as well as from the labels (Hinton et al. 2015).

    The training loss is `alpha * T**2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss of the
    labels`; validation and test measure the student by the labels alone. In a binary task, a logit z counts as two, 0
    and z. Samples whose label is ignored learn from the teacher alone.

    The teacher is loaded when fitting starts, is frozen, and is not a submodule: its weights are neither among the
    parameters nor in checkpoints and exported graphs. If the data are not augmented, its logits are computed once;
    otherwise in every step.

    Args:
        teacher: A checkpoint of a classifier that was trained on data like these.
        student: The model that learns: a class of `lit_models`, or the import path of another.
        student_args: The student's own options, such as `hidden` and `dropout`; those of training are options here.
        temperature: Divisor of both models' logits: the higher, the more the unlikely classes count.
        alpha: Weight of the teacher's term in the loss, 0 to 1; the labels have the rest.
        teacher_class: Import path of the teacher's class, if it is not in `lit_models`: no other class is imported
            because a file names it.
        kwargs: Options of `LitWrapper` and `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the task is not classification.
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
            ModelError: If there is none, or it has other classes or inputs than these data.
        """
        file = self.hparams["teacher"]
        if file is None:
            raise ModelError("a student learns from a trained classifier", "give its checkpoint", "teacher")
        path = Path(file).expanduser()
        if not path.is_file():
            raise ModelError("there is no such file", "give the checkpoint of a trained classifier", "teacher", file)
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            class_path = str(checkpoint["class_path"])
        except Exception as error:  # unpickling a file of another kind may raise anything
            problem = "it is no checkpoint of Kindling's"
            raise ModelError(problem, "give a best.ckpt or last.ckpt of a run", "teacher", file) from error
        cls = find_class(class_path, LitModule)
        is_ours = cls is not None and cls.__module__.partition(".")[0] == __package__
        if cls is None or not (is_ours or class_path == self.hparams["teacher_class"]):
            remedy = f"give `teacher_class={class_path}` and import it if you trust it"
            raise ModelError(f"it is a {class_path}, which would be run here", remedy, "teacher", file)
        try:
            teacher = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        except (RuntimeError, TypeError, KeyError) as error:
            problem = f"no {cls.__name__} can be made of it ({' '.join(str(error).split())[:100]})"
            raise ModelError(problem, "give another", "teacher", file) from error
        _check_model(file, teacher, self.task, self.sizes)
        _check_encoding(file, checkpoint, getattr(self._trainer, "datamodule", None))
        return teacher.eval().requires_grad_(False)

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
        """Compute the KL divergence of a student's predictions from the teacher's, softened by the temperature.

        It is scaled by `T**2`, which keeps the size of its gradient, and reduced as the loss of the labels is.
        The student's logits are `(B, num_outputs)`, or of an ensemble `(B * k, num_outputs)`, the `k` of a sample in
        succession; `targets`, the teacher's, are `(B, num_outputs)`.
        """
        if len(logits) > len(targets):
            targets = targets.repeat_interleave(len(logits) // len(targets), dim=0)
        student, teacher = (of.to(logits) / self.temperature for of in (logits, targets))
        if logits.shape[1] == 1:  # of a binary task, whose other class has a logit of 0
            student, teacher = F.pad(student, (1, 0)), F.pad(teacher, (1, 0))
        divergence: Tensor = self.divergence(F.log_softmax(student, 1), F.softmax(teacher, 1))
        return divergence * self.temperature**2


def _check_model(file: str, teacher: LitModule, task: Task, sizes: Mapping[str, Any]) -> None:
    """Raise an error if a teacher has another task, other classes or other inputs than the student."""
    name = f"a {type(teacher).__name__}"
    if getattr(getattr(teacher, "task", None), "name", "") != task.name or hasattr(teacher, "is_embedding"):
        raise ModelError(f"{name} is no classifier of a {task.name} task, as this is", "give one", "teacher", file)
    if teacher.num_outputs != task.num_outputs:
        problem = f"{name} of {teacher.num_outputs} classes cannot teach {task.num_outputs}"
        raise ModelError(problem, "give another", "teacher", file)
    for option in ("input_shape", "in_features", "cat_cardinalities", "vocab_size"):
        sizes_of_both = sizes[option], teacher.hparams.get(option)
        own, other = (size if size is None or isinstance(size, int) else list(size) for size in sizes_of_both)
        if own is not None and other is not None and own != other:
            problem = f"{name} whose {option} is {other} cannot teach on data whose {option} is {own}"
            raise ModelError(problem, REMEDY, "teacher", file)
    reads_tokens, has_tokens = teacher.hparams.get("vocab_size") is not None, sizes["vocab_size"] is not None
    if reads_tokens != has_tokens and any(size is not None for size in sizes.values()):
        reads, data = ("reads", "none") if reads_tokens else ("cannot read", "texts")
        raise ModelError(f"{name} {reads} tokens of text, and these data are {data}", REMEDY, "teacher", file)


def _check_encoding(file: str, checkpoint: Mapping[str, Any], data: LightningDataModule | None) -> None:
    """Raise an error if these data have other classes than the teacher's, or encode inputs otherwise."""
    dicts = {key: item for key, item in checkpoint.items() if isinstance(item, dict)}
    states = [state for key, state in dicts.items() if str(state.get("class_path")).rpartition(".")[2] == key]
    if data is None or not states:
        return
    saved, names = states[0], getattr(data, "class_names", None)
    if saved.get("class_names") and names and list(saved["class_names"]) != list(names):
        own, other = _listed(names), _listed(saved["class_names"])
        problem = f"its classes are {other}, and those of these data are {own}, in this order"
        raise ModelError(problem, "give a teacher of the same", "teacher", file)
    now = data.state_dict()
    for key in saved.keys() - NO_ENCODING:
        if key in now and saved[key] != now[key]:
            problem = f"it was trained on data with other {key.replace('_', ' ')}, so that it would misread these"
            raise ModelError(problem, "give one that was trained on the same training split", "teacher", file)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
