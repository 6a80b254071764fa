"""Every recipe in `configs/` runs as it stands, from the command line."""

import re
from pathlib import Path

import pytest
import torch

from lit_models import LitConvNet
from tests.helpers.front_door import ROOT, Run
from tests.helpers.published import publish_weights
from tests.helpers.trainers import keep

RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
# Test metrics that recipes on embedded data must reach, and their bounds.
EMBEDDED = {"digits": ("test_acc", 0.96), "iris": ("test_acc", 0.9), "logistic": ("test_acc", 0.95)}

TREC = "--data.path {data_dir}/text/train_5500.label --data.test_path {data_dir}/text/TREC_10.label"
SHAKESPEARE = "--data.path {data_dir}/text/tinyshakespeare.txt"
HOUSES = "--data.path {data_dir}/tabular/california_housing.csv --data.target median_house_value"
PHOTOS = "--data.path {data_dir}/hymenoptera_data --data.batch_size 2"
MNIST = "--data.data_dir {mnist_dir}"

# The flags that a recipe needs beside its file; a word in braces is a fixture.
NEEDS = {
    **dict.fromkeys(("diabetes_dropout", "digits", "gpt_pydocs", "iris", "line", "logistic"), ""),
    **dict.fromkeys(
        ("fashion_conv", "fashion_lenet", "mnist_conv", "mnist_lenet", "mnist_mlp", "mnist_mlp_256"), MNIST
    ),
    "mnist_siamese": MNIST,
    "mnist_distill": MNIST + " --model.teacher {teacher}",
    "table_sigmoid": "--data.path {data_dir}/tabular/diabetes_normalized.csv.gz --data.target y",
    "table_mlp": HOUSES,
    "table_tabm": HOUSES,
    "ants_bees_resnet18": PHOTOS,
    "ants_bees_vgg16": PHOTOS,
    "folder_conv": PHOTOS,
    "text_trec_bag": TREC,
    "text_trec_transformer": TREC,
    "gpt_shakespeare_char": SHAKESPEARE,
}
BACKBONES = {"ants_bees_resnet18": "resnet18", "ants_bees_vgg16": "vgg16"}  # whose pretrained weights a recipe needs


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """A checkpoint of an untrained network."""
    return keep(LitConvNet(channels=[4]), tmp_path / "teacher.ckpt")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_runs(run: Run, recipe: str, request: pytest.FixtureRequest) -> None:
    flags = re.sub(r"{(\w+)}", lambda name: request.getfixturevalue(name[1]), NEEDS[recipe])
    if recipe in BACKBONES:
        publish_weights(request, BACKBONES[recipe])
    run(f"--config {ROOT}/configs/{recipe}.yaml {flags} --fast_dev_run 2")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_states_its_command(recipe: str) -> None:
    lines = (ROOT / "configs" / f"{recipe}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith(f"#   python train.py --config configs/{recipe}.yaml")


@pytest.mark.parametrize("recipe", EMBEDDED)
def test_embedded_recipe_reaches_its_figure(run: Run, recipe: str) -> None:
    metric, bound = EMBEDDED[recipe]
    cli = run(f"--config {ROOT}/configs/{recipe}.yaml")
    assert cli.trainer.callback_metrics[metric] >= bound


def test_text_trec_bag_reaches_its_figure(run: Run, data_dir: str) -> None:
    cli = run(f"--config {ROOT}/configs/text_trec_bag.yaml {TREC.format(data_dir=data_dir)}")
    assert cli.trainer.callback_metrics["test_acc"] >= 0.84


@pytest.mark.slow
def test_shakespeare_is_learned_in_half_of_nanogpts_steps(run: Run, data_dir: str) -> None:
    path = SHAKESPEARE.format(data_dir=data_dir)
    # By AdamW, which takes as long on every machine.
    options = "--model.optimizer AdamW --model.lr 0.005 --max_steps 1000 --val_check_interval 1000"
    cli = run(f"--config {ROOT}/configs/gpt_shakespeare_char.yaml {path} {options}")
    assert cli.summary.summary["best"]["val_loss"] <= 1.88


def test_line_finds_slope_and_intercept(run: Run) -> None:
    cli = run(f"--config {ROOT}/configs/line.yaml")
    weight, bias = cli.model.net[1].weight.item(), cli.model.net[1].bias.item()
    assert cli.trainer.global_step == 100
    assert weight == pytest.approx(2, abs=0.3)
    # The remaining error lies along the valley of the cost, where a higher weight goes with a lower bias.
    assert 2 * weight + bias == pytest.approx(4, abs=0.1)
    assert cli.model(torch.tensor([[4.0]])).item() == pytest.approx(8, abs=0.7)


def test_digits_equals_the_defaults(run: Run) -> None:
    plain = run("").trainer.callback_metrics
    recipe = run(f"--config {ROOT}/configs/digits.yaml").trainer.callback_metrics
    assert plain["test_loss"] == recipe["test_loss"]


def test_a_saved_config_repeats_the_run(run: Run) -> None:
    first = run("--max_epochs 2 --model.hidden [16] --data.seed 3").trainer.callback_metrics
    saved = Path("runs/LitMLP-DigitsDataModule/version_0/config.yaml")
    second = run(f"--config {saved}").trainer.callback_metrics
    assert first["test_loss"] == second["test_loss"]
