"""A student learns from a teacher's checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from datamodules import DigitsDataModule
from lit_models import LitDistiller, LitMLP, LitSiamese, LitTabM, LitTextClassifier, ModelError
from tests.helpers.front_door import Run
from tests.helpers.trainers import keep, quiet_trainer

DIGITS: dict[str, Any] = {"in_features": 64, "input_shape": (1, 8, 8)}
SMALL: dict[str, Any] = {**DIGITS, "student_args": {"hidden": [8]}, "optimizer": "SGD", "lr": 0.1, "momentum": 0.0}


class OddMLP(LitMLP):
    """A classifier of somebody else's."""


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """A teacher of digits, which knows nothing yet."""
    torch.manual_seed(7)
    return keep(LitMLP(64, [16]), tmp_path / "teacher.ckpt")


def _fit(model: LitMLP | LitDistiller, **options: Any) -> list[Tensor]:
    data = DigitsDataModule(batch_size=100)
    trainer = quiet_trainer(**options)
    trainer.fit(model, data)
    return [p.detach().clone() for p in model.parameters()]


def _student(teacher: str, **options: Any) -> LitDistiller:
    seed_everything(1)
    return LitDistiller(teacher, **{**SMALL, **options})


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_loss_and_its_gradient_are_those_of_the_formula(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 10, dtype=torch.float64, generator=generator).requires_grad_()
    taught = 3 * torch.randn(6, 10, dtype=torch.float64, generator=generator)
    loss = LitDistiller(temperature=temperature).soft_loss(scores, taught)
    loss.backward()
    p, q = (
        (of / temperature).exp() / (of / temperature).exp().sum(1, keepdim=True) for of in (taught, scores.detach())
    )
    torch.testing.assert_close(loss.detach(), temperature**2 * (p * (p / q).log()).sum() / 6)
    torch.testing.assert_close(scores.grad, temperature * (q - p) / 6)


def test_the_logits_of_a_binary_task_are_0_and_z() -> None:
    z, taught = torch.tensor([[0.5], [-2.0]]).double(), torch.tensor([[3.0], [1.0]]).double()
    model = LitDistiller(task="binary", num_outputs=1, temperature=2)
    p, q = (taught / 2).sigmoid(), (z / 2).sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / 2
    torch.testing.assert_close(model.soft_loss(z, taught), 4 * expected)


def test_a_summed_loss_is_that_of_all_samples_and_an_ensemble_learns_member_by_member() -> None:
    scores, taught = torch.randn(6, 10), torch.randn(3, 10)
    model, summed = LitDistiller(), LitDistiller(reduction="sum")
    assert summed.soft_loss(scores[:3], taught).item() == pytest.approx(
        3 * model.soft_loss(scores[:3], taught).item(), rel=1e-5
    )
    each = [model.soft_loss(scores[:3], taught[[0, 0, 1]]), model.soft_loss(scores[3:], taught[[1, 2, 2]])]
    assert model.soft_loss(scores, taught).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    assert isinstance(LitDistiller(student="LitTabM", student_args={"k": 2}, in_features=64).net, LitTabM)


def test_without_a_share_of_the_teacher_it_is_plain_training(teacher: str) -> None:
    ours = _fit(_student(teacher, alpha=0.0))
    seed_everything(1)
    plain = _fit(LitMLP(64, [8], optimizer="SGD", lr=0.1, momentum=0.0))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_ignored_labels_leave_the_teacher_alone_in_the_loss(teacher: str) -> None:
    model = _student(teacher, alpha=0.5, ignore_index=9)
    model._teachers = [model.load_teacher()]
    x, unknown, known = torch.rand(6, 1, 8, 8), torch.full((6,), 9), torch.arange(6)
    soft = model.soft_loss(model(x), model.teacher_logits(x))
    torch.testing.assert_close(model.training_step((x, unknown), 0), 0.5 * soft)
    hard = F.cross_entropy(model(x), known)
    torch.testing.assert_close(model.training_step((x, known), 0), 0.5 * soft + 0.5 * hard)


@pytest.mark.parametrize("computed", ["once", "in each step"])
def test_every_step_is_that_of_a_plain_loop(teacher: str, computed: str) -> None:
    model = _student(teacher, alpha=0.7, temperature=3.0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    assert isinstance(model.net, LitMLP)
    net.load_state_dict(model.net.net.get_submodule("layers").state_dict())
    asked, teach = [], model.teacher_logits

    def count(x: Tensor) -> Tensor:
        asked.append(len(x))
        return teach(x)

    model.teacher_logits = count  # type: ignore[method-assign]
    ours = _fit(model, **({} if computed == "once" else {"limit_train_batches": 13}))
    assert sum(asked) == 1294
    assert (len(asked) == 13) == (computed == "in each step")

    data = DigitsDataModule(batch_size=100)
    mean, std = data.statistics["mean"], data.statistics["std"]
    teaches = LitMLP.load_from_checkpoint(teacher, weights_only=True).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    batches = list(data.train_dataloader())
    assert len(batches) == 13
    for x, y in batches:
        with torch.no_grad():
            p = (teaches(x) / 3).softmax(1)
        scores = net((x / 255 - mean) / std)
        soft = 9 * F.kl_div((scores / 3).log_softmax(1), p, reduction="batchmean")
        optimizer.zero_grad()
        (0.7 * soft + 0.3 * F.cross_entropy(scores, y)).backward()
        optimizer.step()
    torch.testing.assert_close(ours, [p.detach() for p in net.parameters()], rtol=0, atol=1e-6)


def test_a_summed_loss_is_logged_as_the_mean_over_samples(teacher: str) -> None:
    logged = []
    for reduction in ("mean", "sum"):
        trainer = quiet_trainer()
        trainer.fit(_student(teacher, reduction=reduction, lr=0.0), DigitsDataModule(batch_size=100))
        logged.append(trainer.callback_metrics["train_loss"])
    torch.testing.assert_close(*logged)


def test_the_teacher_stays_as_it_is_and_is_no_part_of_the_student(teacher: str) -> None:
    model = _student(teacher)
    before, seen = model.state_dict().keys(), []
    taught = model.teacher_logits

    def look(x: Tensor) -> Tensor:
        seen.append((model._teachers[0].training, [p.clone() for p in model._teachers[0].parameters()]))
        return taught(x)

    model.teacher_logits = look  # type: ignore[method-assign]
    _fit(model, limit_train_batches=3)
    assert len(seen) == 3
    assert not any(training for training, _ in seen)
    torch.testing.assert_close(seen[0][1], seen[-1][1], rtol=0, atol=0)
    assert model.state_dict().keys() == before
    assert sum(p.numel() for p in model.parameters()) == 65 * 8 + 9 * 10
    assert not model._teachers  # it is let go after the fit


def test_a_checkpoint_needs_its_teacher_only_to_resume(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    best = "runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt"
    run("--max_epochs 1 --model.hidden [16]")
    run(f"--model LitDistiller --model.teacher {best} --model.student_args.hidden [8] --max_epochs 1")
    Path(best).unlink()
    ours = "runs/LitDistiller-DigitsDataModule/version_0/checkpoints/last.ckpt"
    run(f"test --ckpt_path {ours}")
    run(f"predict --ckpt_path {ours}")
    with pytest.raises(SystemExit):
        run(f"--ckpt_path {ours} --max_epochs 2")
    assert capsys.readouterr().err == (
        f"train.py: --model.teacher {best}: there is no such file; give the checkpoint of a trained classifier.\n"
    )


def _state(names: list[str]) -> dict[str, Any]:
    return {"class_path": "datamodules.DigitsDataModule", "class_names": names, "columns": "a"}


def test_a_teacher_of_other_data_is_refused(teacher: str, tmp_path: Path) -> None:
    content = torch.load(teacher, weights_only=True)
    content["DigitsDataModule"] = _state(list("1234567890"))
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match=r"its classes are 1, 2, 3, 4, ..., and those of these data are 0, 1, 2, 3"):
        _fit(_student(str(tmp_path / "other.ckpt")))
    content["DigitsDataModule"] = _state(list("0123456789"))
    torch.save(content, tmp_path / "other.ckpt")
    data = DigitsDataModule()
    data.state_dict = lambda: _state(list("0123456789")) | {"columns": "b"}  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="trained on data with other columns, so that it would misread"):
        quiet_trainer().fit(_student(str(tmp_path / "other.ckpt")), data)


def _of_seven(folder: Path) -> LitDistiller:
    return _student(keep(LitMLP(64, [4], num_outputs=7), folder / "seven.ckpt"))


def _of_larger(folder: Path) -> LitDistiller:
    return _student(keep(LitMLP(784, [4]), folder / "large.ckpt"))


def _of_values(folder: Path) -> LitDistiller:
    return _student(keep(LitMLP(64, [4], task="regression"), folder / "values.ckpt"))


def _of_embeddings(folder: Path) -> LitDistiller:
    return _student(keep(LitSiamese("LitMLP", in_features=64), folder / "embeddings.ckpt"))


def _of_words(folder: Path) -> LitDistiller:
    return _student(keep(LitTextClassifier(vocab_size=9), folder / "words.ckpt"))


def _of_text(folder: Path) -> LitDistiller:
    (folder / "text.ckpt").write_text("no checkpoint")
    return _student(str(folder / "text.ckpt"))


def _of_tensors(folder: Path) -> LitDistiller:
    torch.save({"state_dict": {}}, folder / "tensors.ckpt")
    return _student(str(folder / "tensors.ckpt"))


def _of_no_weights(folder: Path) -> LitDistiller:
    content = torch.load(keep(LitMLP(64, [4]), folder / "whole.ckpt"), weights_only=True)
    torch.save({**content, "state_dict": {}}, folder / "part.ckpt")
    return _student(str(folder / "part.ckpt"))


def _of_another_hand(folder: Path) -> LitDistiller:
    return _student(keep(OddMLP(64, [4]), folder / "odd.ckpt"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_of_seven, "a LitMLP of 7 classes cannot teach 10"),
        (_of_larger, "a LitMLP whose in_features is 784 cannot teach on data whose in_features is 64"),
        (_of_values, "a LitMLP is no classifier of a multiclass task"),
        (_of_embeddings, "a LitSiamese is no classifier"),
        (_of_text, "it is no checkpoint of Kindling's"),
        (_of_tensors, "it is no checkpoint of Kindling's"),
        (_of_no_weights, "no LitMLP can be made of it"),
        (_of_another_hand, "give `teacher_class=tests.lit_models.test_distill.OddMLP` and import it if you trust it"),
        (_of_words, "a LitTextClassifier reads tokens of text, and these data are none"),
        (lambda folder: LitDistiller(**SMALL), "^teacher: a student learns from a trained classifier"),
    ],
)
def test_an_unfit_teacher_is_refused(make: Callable[[Path], LitDistiller], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        _fit(make(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_user_class_can_teach_if_it_is_named(tmp_path: Path) -> None:
    file = keep(OddMLP(64, [4]), tmp_path / "odd.ckpt")
    shutil.copy(file, tmp_path / "copy.ckpt")
    _fit(_student(file, teacher_class=f"{__name__}.OddMLP"), limit_train_batches=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "^temperature=0: give more than 0"),
        ({"alpha": 1.5}, "^alpha=1.5: give a share from 0 to 1"),
        ({"task": "regression", "num_outputs": 1}, "^task='regression': LitDistiller is for classification"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LitDistiller(**options)
