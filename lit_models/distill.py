"""Distillation: a small model learns what a large one, trained before, makes of each sample."""

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lit_models.base import Batch, LitModule, MeanLoss
from lit_models.errors import ModelError
from lit_models.wrapper import LitWrapper

# What a checkpoint keeps of its data that says nothing of how they are encoded.
NO_ENCODING = ("class_path", "statistics", "settings", "epoch", "batch", "trained_on", "asked", "class_names")


class LitDistiller(LitWrapper):
    """A student that learns from a teacher's scores as well as from the labels (Hinton et al. 2015).

    The loss is `alpha * T**2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss of the labels`,
    which is also what `train_loss` says; validation and test measure the student by the labels alone. In a binary task
    the scores are the logits 0 and z. Samples whose label is ignored learn from the teacher alone.

    The teacher is read when fitting starts, stays as it is and is no part of this model: not of its parameters, its
    checkpoints or its exported graph. Where the data augment nothing, its scores are computed once; else in every step.

    Args:
        teacher: A checkpoint of a classifier that was trained on data like these.
        student: The model that learns: a class of `lit_models`, or the import path of another.
        student_args: Options of the student's own, as `hidden` and `dropout`; those of the training are options here.
        temperature: What both models' scores are divided by: the higher, the more the unlikely classes count.
        alpha: Share of the teacher in the loss, 0 to 1; the labels have the rest.
        teacher_class: Import path of the teacher's class, if it is none of `lit_models`: nothing else is imported
            because a file says so.
        kwargs: Options of `LitWrapper` and `LitModule`.
    """

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
            raise ModelError(
                f"--model LitDistiller: this is a {self.task.name} task, and a teacher tells how likely each class is; "
                "give data with classes."
            )
        if temperature <= 0:
            raise ModelError(f"--model.temperature {temperature}: give more than 0.")
        if not 0 <= alpha <= 1:
            raise ModelError(f"--model.alpha {alpha}: give a share from 0 to 1.")
        self.temperature, self.alpha = temperature, alpha
        self.make_inner("student", student, student_args, self.task.name, self.num_outputs)
        self.divergence = nn.KLDivLoss(reduction="sum" if self.hparams["reduction"] == "sum" else "batchmean")
        self._teachers: list[LitModule] = []  # one, in a list, where torch does not see it as a part of this model

    def setup(self, stage: str) -> None:
        """Read the teacher when fitting starts."""
        if stage == "fit":
            self._teachers = [self.read_teacher()]
        super().setup(stage)

    def teardown(self, stage: str) -> None:
        """Let go of the teacher."""
        self._teachers = []

    def read_teacher(self) -> LitModule:
        """Read the teacher from its checkpoint: frozen, in evaluation mode, on the CPU.

        Raises:
            ModelError: If there is none, or it does not know these classes or inputs.
        """
        file = self.hparams["teacher"]
        if file is None:
            raise ModelError("--model.teacher: a student learns from a trained classifier; give its checkpoint.")
        flag = f"--model.teacher {file}"
        if not Path(file).expanduser().is_file():
            raise ModelError(f"{flag}: there is no such file; give the checkpoint of a trained classifier.")
        path = str(Path(file).expanduser())
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            class_path = str(checkpoint["class_path"])
        except Exception as error:  # whatever unpickling a file of another kind may raise
            raise ModelError(
                f"{flag}: it is no checkpoint of Kindling's; give a best.ckpt or last.ckpt that train.py left."
            ) from error
        cls = self._teacher_class(flag, class_path)
        try:
            teacher = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        except (RuntimeError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ModelError(f"{flag}: no {cls.__name__} can be made of it ({reason}); give another.") from error
        self._check_scores(flag, teacher)
        self._check_data(flag, checkpoint)
        return teacher.eval().requires_grad_(False)

    def _teacher_class(self, flag: str, class_path: str) -> type[LitModule]:
        given = self.hparams["teacher_class"]
        module, _, name = class_path.rpartition(".")
        if module.partition(".")[0] != __package__ and class_path != given:
            raise ModelError(
                f"{flag}: it is a {class_path}, which would be imported here; give --model.teacher_class {class_path} "
                "if you trust it."
            )
        try:
            cls: type[LitModule] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ModelError(f"{flag}: its class {class_path} is not there ({error}).") from error
        return cls

    def _check_scores(self, flag: str, teacher: LitModule) -> None:
        """Refuse a teacher of another task, of other classes or of other inputs."""
        what = f"{flag}: a {type(teacher).__name__}"
        task = getattr(getattr(teacher, "task", None), "name", "another")
        if task != self.task.name or hasattr(teacher, "is_embedding"):
            raise ModelError(f"{what} is no classifier of a {self.task.name} task, as this is; give one.")
        if teacher.num_outputs != self.num_outputs:
            raise ModelError(f"{what} of {teacher.num_outputs} classes cannot teach {self.num_outputs}; give another.")
        for name in ("input_shape", "in_features", "cat_cardinalities", "vocab_size"):
            own, other = self.sizes[name], teacher.hparams.get(name)
            if own is not None and other is not None and _plain(own) != _plain(other):
                raise ModelError(
                    f"{what} whose {name} is {_plain(other)} cannot teach on data whose {name} is {_plain(own)}; "
                    "give one that was trained on data like these."
                )
        reads, taught = teacher.hparams.get("vocab_size") is not None, self.sizes["vocab_size"] is not None
        if reads != taught and any(size is not None for size in self.sizes.values()):
            raise ModelError(
                f"{what} {'reads' if reads else 'cannot read'} tokens of text, and these data are "
                f"{'texts' if taught else 'none'}; give one that was trained on data like these."
            )

    def _check_data(self, flag: str, checkpoint: dict[str, Any]) -> None:
        """Refuse a teacher to whom an output, or a number in an input, means something else than to these data."""
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        states = [s for key, s in checkpoint.items() if isinstance(s, dict) and _name(s.get("class_path")) == key]
        if data is None or not states:
            return
        trained, names = states[0], getattr(data, "class_names", None)
        if trained.get("class_names") and names and list(trained["class_names"]) != list(names):
            raise ModelError(
                f"{flag}: its classes are {_listed(trained['class_names'])}, and those of these data are "
                f"{_listed(names)}, in this order; give a teacher of the same."
            )
        now = data.state_dict()
        for key in trained.keys() - NO_ENCODING:
            if key in now and trained[key] != now[key]:
                raise ModelError(
                    f"{flag}: it was trained on data with other {key.replace('_', ' ')}, so that it would read these "
                    "wrongly; give one that was trained on the same training split."
                )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Bring the teacher to the device, and have it look at the data once if that is enough."""
        trainer = self.trainer
        for teacher in self._teachers:
            teacher.to(self.device, next(self.parameters()).dtype)
        annotate = getattr(trainer.datamodule, "annotate", None)  # type: ignore[attr-defined]  # Lightning gives no type
        # 1.0 is all, 1 is one batch.
        limit = trainer.limit_train_batches
        if annotate is not None and isinstance(limit, float) and limit == 1 and self.alpha:
            with trainer.precision_plugin.forward_context():
                annotate(self.teach, self.device)
        return super().configure_optimizers()

    @torch.no_grad()
    def teach(self, x: Tensor) -> Tensor:
        """Compute the teacher's scores, `(B, num_outputs)`, from raw inputs."""
        scores: Tensor = self._teachers[0](x)
        return scores

    def training_step(self, batch: Batch | tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss to descend along; a batch may have the teacher's scores in the third place."""
        x, y, *known = batch
        hard, scores, y = self._shared_step((x, y), MeanLoss())
        loss = (1 - self.alpha) * hard
        if self.alpha:
            loss = loss + self.alpha * self.soft_loss(scores, known[0] if known else self.teach(x))
        terms = self.task.num_terms(scores, y) if self.hparams["reduction"] == "sum" else 1
        self.train_loss.update(loss.detach() / terms, self.task.num_samples(y))
        return loss

    def soft_loss(self, scores: Tensor, taught: Tensor) -> Tensor:
        """Compare a student's scores with the teacher's, at the temperature.

        Args:
            scores: Shape `(B, num_outputs)`; of an ensemble `(B * k, num_outputs)`, the `k` of a sample in succession.
            taught: Shape `(B, num_outputs)`.

        Returns:
            The divergence times `T**2`, which keeps its gradient of one size: a mean or sum, as that of the labels.
        """
        if len(scores) > len(taught):
            taught = taught.repeat_interleave(len(scores) // len(taught), dim=0)
        student, teacher = (_two_sided(of.to(scores)) / self.temperature for of in (scores, taught))
        divergence: Tensor = self.divergence(F.log_softmax(student, 1), F.softmax(teacher, 1))
        return divergence * self.temperature**2


def _two_sided(scores: Tensor) -> Tensor:
    """Give the logits of both classes of a binary task, of which one is 0; others as they are."""
    return F.pad(scores, (1, 0)) if scores.shape[1] == 1 else scores


def _plain(value: Any) -> Any:  # noqa: ANN401  # a size, or several
    return value if isinstance(value, int) else list(value)


def _name(class_path: object) -> str:
    return str(class_path).rpartition(".")[2]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
