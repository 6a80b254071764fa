"""Every model can fit, resume, load safely, test to the same figure, predict and export."""

from pathlib import Path

import pytest
import torch

import lit_models
from datamodules import DataModule
from lit_models import LitMLP, LitModule
from tests.helpers.front_door import Run

# Flags to train each model on small embedded data.
IMAGES = "--data tests.helpers.tiny.TinyImages"
MODELS = {
    "LitLinearRegression": "--data ToyDataModule --data.name diabetes",
    "LitLogisticRegression": "--data ToyDataModule --data.name breast_cancer",
    "LitMLP": "--data DigitsDataModule",
    "LitMLPEnsemble": "--data ToyDataModule --data.name wine --model.k 4 --model.hidden [16]",
    "LitTabM": "--data ToyDataModule --data.name wine --model.k 4 --model.width 16",
    "LitLeNet": IMAGES,
    "LitConvNet": f"{IMAGES} --model.channels [4,8]",
    "LitTransfer": f"{IMAGES} --model.backbone mobilenet_v3_small --model.weights none",
    "LitTextClassifier": "--data tests.helpers.tiny.TinyTexts --model.pairs 50 --model.sparse true",
    "LitDistiller": "--data DigitsDataModule --model.student_args.hidden [8] --model.teacher {teacher}",
    "LitSiamese": f"{IMAGES} --model.encoder_args.channels [4,8]",
    "LitGPT": "--data tests.helpers.tiny.TinyCorpus --model.width 16 --model.temperature 0 --model.max_new_tokens 6",
}


def test_every_model_is_here() -> None:
    leaves = {name for name in lit_models.__all__ if name.startswith("Lit")} - {"LitModule"}
    assert leaves == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_model_goes_the_whole_way(run: Run, name: str) -> None:
    options = MODELS[name]
    if "{teacher}" in options:
        teacher = run("--model.hidden [16] --max_epochs 1").trainer.default_root_dir
        options = options.format(teacher=f"{teacher}/checkpoints/best.ckpt")
    fitted = run(f"--model {name} {options} --max_epochs 2")
    figures = {key: value for key, value in fitted.trainer.callback_metrics.items() if key.startswith("test_")}
    assert figures

    folder = Path(fitted.trainer.default_root_dir) / "checkpoints"
    # Data of the tests' own must be named again.
    named = " ".join(options.split()[:2]) if "--data tests." in options else ""
    resumed = run(f"--ckpt_path {folder}/last.ckpt --max_epochs 3 {named}")
    assert resumed.trainer.current_epoch == 3
    assert resumed.trainer.global_step == 3 * resumed.trainer.num_training_batches

    # From the command line, with nothing else said.
    tested = run(f"test --ckpt_path {folder}/best.ckpt {named}")
    for key, value in figures.items():
        assert tested.trainer.callback_metrics[key] == value

    # In a plain session, without any argument, on raw inputs.
    torch.load(folder / "best.ckpt", weights_only=True)
    cls: type[LitModule] = getattr(lit_models, name)
    model = cls.load_from_checkpoint(folder / "best.ckpt", weights_only=True).eval()
    data = fitted.datamodule
    assert isinstance(data, DataModule)
    samples, indices = data.splits["test"]
    x, y = samples[indices]
    with torch.no_grad():
        predicted = model.predict_step(x, 0)
    metrics = model.task.metrics().clone(prefix="test_")
    metrics.update(predicted, y)
    for key, value in metrics.compute().items():
        assert value == pytest.approx(figures[key].item(), abs=1e-6)

    # One row of the predictions file for each sample, saying the same.
    run(f"predict --ckpt_path {folder}/best.ckpt {named}")
    rows = Path("predictions.csv").read_text().splitlines()[1:]
    decode = getattr(model, "decode", data.decode)  # a model with outputs of its own kind decodes them itself
    first = next(iter(decode(predicted).values()))
    if isinstance(first[0], float):  # batches of other sizes round differently
        assert [float(row.split(",")[0]) for row in rows] == pytest.approx(first, rel=1e-5, abs=1e-5)
    else:
        assert [row.split(",")[0] for row in rows] == [str(value) for value in first]

    # The exported graph takes raw inputs too.
    exported = torch.export.export(model, (x[:2],)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x[:2]), model(x[:2]))


@pytest.mark.parametrize("name", MODELS)
def test_model_needs_no_argument(name: str) -> None:
    cls: type[LitModule] = getattr(lit_models, name)
    model = cls().eval()
    logits = model(model.example_input_array)
    assert (len(logits), logits.shape[-1]) == (2, model.num_outputs)


def test_the_logged_loss_is_the_mean_over_samples_not_batches(run: Run) -> None:
    cli = run("--max_epochs 2 --data.batch_size 50")  # 359 test samples: one full batch of 200, and 159
    best = Path(cli.trainer.default_root_dir) / "checkpoints" / "best.ckpt"
    model = LitMLP.load_from_checkpoint(best, weights_only=True).eval()
    data = cli.datamodule
    assert isinstance(data, DataModule)
    samples, indices = data.splits["test"]
    x, y = samples[indices]
    with torch.no_grad():
        loss = model.task.loss(model(x), y)
    assert cli.trainer.callback_metrics["test_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
