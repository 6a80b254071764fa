"""Every recipe in `configs/` runs as it stands, through the real front door."""

from pathlib import Path

import pytest
import torch

from lit_models import LitConvNet
from tests.helpers.front_door import ROOT, Run
from tests.helpers.published import publish_weights
from tests.helpers.trainers import keep

RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
# What the embedded ones must reach when they really train: the test metric, and its bound.
EMBEDDED = {"digits": ("test_acc", 0.96), "iris": ("test_acc", 0.9), "logistic": ("test_acc", 0.95)}

# Those that take a table of one's own: a file to run them on, and its target.
TABLES = {
    "table_sigmoid": ("diabetes_normalized.csv.gz", "y"),
    "table_mlp": ("california_housing.csv", "median_house_value"),
    "table_tabm": ("california_housing.csv", "median_house_value"),
}

# Those that take pictures of one's own, and the pretrained network that they want.
PHOTOS = {"ants_bees_resnet18": "resnet18", "ants_bees_vgg16": "vgg16", "folder_conv": ""}

# Those that take texts.
TREC = "--data.path {folder}/train_5500.label --data.test_path {folder}/TREC_10.label"
TEXTS = {
    "text_trec_bag": TREC,
    "text_trec_transformer": TREC,
    "gpt_shakespeare_char": "--data.path {folder}/tinyshakespeare.txt",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_runs(run: Run, recipe: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = ROOT / "configs" / f"{recipe}.yaml"
    data = ""
    if "mnist" in path.read_text().lower():
        data = f" --data.data_dir {request.getfixturevalue('data_dir')}"
    if recipe == "mnist_distill":
        data += f" --model.teacher {keep(LitConvNet(channels=[4]), tmp_path / 'teacher.ckpt')}"
    if recipe in TABLES:
        file, target = TABLES[recipe]
        data = f" --data.path {request.getfixturevalue('data_dir')}/tabular/{file} --data.target {target}"
    if recipe in TEXTS:
        data = f" {TEXTS[recipe].format(folder=Path(request.getfixturevalue('data_dir'), 'text'))}"
    if recipe in PHOTOS:
        data = f" --data.path {request.getfixturevalue('data_dir')}/hymenoptera_data --data.batch_size 2"
        if PHOTOS[recipe]:
            publish_weights(request, PHOTOS[recipe])
    run(f"--config {path}{data} --fast_dev_run 2")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_says_how_it_is_run(recipe: str) -> None:
    lines = (ROOT / "configs" / f"{recipe}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith(f"#   python train.py --config configs/{recipe}.yaml")


@pytest.mark.parametrize("recipe", EMBEDDED)
def test_embedded_recipe_reaches_its_figure(run: Run, recipe: str) -> None:
    metric, bound = EMBEDDED[recipe]
    cli = run(f"--config {ROOT}/configs/{recipe}.yaml")
    assert cli.trainer.callback_metrics[metric] >= bound


def test_a_bag_of_words_knows_what_a_question_asks_for(run: Run, data_dir: str) -> None:
    paths = TEXTS["text_trec_bag"].format(folder=Path(data_dir, "text"))
    cli = run(f"--config {ROOT}/configs/text_trec_bag.yaml {paths}")
    assert cli.trainer.callback_metrics["test_acc"] >= 0.84


@pytest.mark.slow
def test_shakespeare_is_learned_in_half_of_nanogpts_steps(run: Run, data_dir: str) -> None:
    path = TEXTS["gpt_shakespeare_char"].format(folder=Path(data_dir, "text"))
    # By AdamW, which takes as long on every machine.
    options = "--model.optimizer AdamW --model.lr 0.005 --max_steps 1000 --val_check_interval 1000"
    cli = run(f"--config {ROOT}/configs/gpt_shakespeare_char.yaml {path} {options}")
    assert cli.summary.summary["best"]["val_loss"] <= 1.88


def test_the_line_is_found(run: Run) -> None:
    cli = run(f"--config {ROOT}/configs/line.yaml")
    weight, bias = cli.model.net[1].weight.item(), cli.model.net[1].bias.item()
    assert cli.trainer.global_step == 100
    assert weight == pytest.approx(2, abs=0.3)
    # What is left of the error lies along the valley of the cost, where a higher weight goes with a lower bias.
    assert 2 * weight + bias == pytest.approx(4, abs=0.1)
    assert cli.model(torch.tensor([[4.0]])).item() == pytest.approx(8, abs=0.7)


def test_digits_is_what_happens_without_a_recipe(run: Run) -> None:
    plain = run("").trainer.callback_metrics
    recipe = run(f"--config {ROOT}/configs/digits.yaml").trainer.callback_metrics
    assert plain["test_loss"] == recipe["test_loss"]


def test_a_saved_config_repeats_the_run(run: Run) -> None:
    first = run("--max_epochs 2 --model.hidden [16] --data.seed 3").trainer.callback_metrics
    saved = Path("runs/LitMLP-DigitsDataModule/version_0/config.yaml")
    second = run(f"--config {saved}").trainer.callback_metrics
    assert first["test_loss"] == second["test_loss"]
