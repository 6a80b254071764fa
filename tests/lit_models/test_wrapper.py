"""A model within a model, named by its class."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torchvision import models

from lit_models import LitConvNet, LitMLP, LitSiamese, LitTransfer, ModelError
from tests.helpers.tiny import TinyImages
from tests.helpers.trainers import quiet_trainer

TEXTS = {"vocab_size": 30, "max_length": 12}
ROWS = {"in_features": 8, "input_shape": (8,)}


class Wider(LitMLP):
    """A model with one output too many.

    Args:
        kwargs: Options of `LitMLP`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "num_outputs": kwargs["num_outputs"] + 1})


@pytest.mark.parametrize(
    ("encoder", "args", "sizes", "message"),
    [
        ("LitMPL", {}, {}, "^encoder='LitMPL': there is no such model; did you mean LitMLP?"),
        ("os.path", {}, {}, "^encoder='os.path': there is no such model; give LitMLP, LitConvNet"),
        ("no.such.Model", {}, {}, "^encoder='no.such.Model': there is no such model; import no.such first"),
        ("LitSiamese", {}, {}, "^encoder=.*: it is no plain model"),
        ("LitModule", {}, {}, "it is no plain model"),
        ("LitMLP", {"hiden": [3]}, {}, r"^encoder_args.hiden=\[3\]: LitMLP has no such option; did you mean hidden\?"),
        ("LitMLP", {"lr": 1.0}, {}, "^encoder_args.lr=1.0: it is no option of LitMLP alone; give `lr`"),
        ("LitMLP", {"in_features": 3}, {}, "^encoder_args.in_features=3: .* the data say it"),
        ("LitMLP", {"hidden": [0]}, {}, r"^encoder_args.hidden=\[0\]: a layer has at least 1 unit"),
        ("LitMLP", {"hidden": "many"}, {}, "^encoder_args={.*: LitMLP cannot be made with these"),
        (
            "LitMLP",
            {},
            TEXTS,
            "^encoder='LitMLP': it cannot read (labeled texts|text), which these data are; give another model",
        ),
        (
            "LitTextClassifier",
            {},
            ROWS,
            "^encoder='LitTextClassifier': it reads labeled texts, which these data are not",
        ),
        ("LitConvNet", {}, ROWS, r"^encoder='LitConvNet': it does not fit these data, of which an input is \(8,\)"),
        ("LitLeNet", {}, {"input_shape": (1, 8, 8)}, r"^input_shape=\[1, 8, 8\]: LeNet is made for 28x28"),
        (
            "LitConvNet",
            {},
            {"cat_cardinalities": [3]},
            "it takes no cat_cardinalities, and would read the codes of categories as numbers",
        ),
        ("LitLinearRegression", {}, {}, "^encoder='LitLinearRegression': LitLinearRegression is for regression"),
        (
            "LitTextClassifier",
            {"encoder": "transformer", "embedding_dim": 5, "num_heads": 4},
            TEXTS,
            "^encoder_args.num_heads=4: give a divisor of `encoder_args.embedding_dim=5`",
        ),
        (f"{__name__}.Wider", {}, {}, "it has 33 outputs for each sample, and num_outputs is 32"),
    ],
)
def test_an_inner_model_that_does_not_fit_is_refused(
    encoder: str, args: dict[str, Any], sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        LitSiamese(encoder, args, **sizes)
    assert "\n" not in str(refused.value)


def test_sizes_are_passed_to_inner_models_that_take_them() -> None:
    model = LitSiamese("LitMLP", {"hidden": [5]}, in_features=9, input_shape=(1, 3, 3), cat_cardinalities=[4])
    assert isinstance(model.net, LitMLP)
    assert model.net.net.get_submodule("layers.1").in_features == 8 + 3  # of the category's codes, all but 0
    assert model(torch.zeros(2, 9)).shape == (2, 32)
    images = LitSiamese("lit_models.LitConvNet", {"channels": [4]}, in_features=9, input_shape=(3, 3, 3))
    assert isinstance(images.net, LitConvNet)
    assert images(torch.zeros(2, 3, 3, 3, dtype=torch.uint8)).shape == (2, 32)


@pytest.mark.parametrize("normalize", [True, False])
def test_inputs_are_normalized_once(normalize: bool) -> None:
    data = TinyImages()
    model = LitSiamese(encoder_args={"channels": [4]}, normalize=normalize)
    quiet_trainer(limit_train_batches=1).fit(model, data)
    assert not model.normalization.is_set
    assert model.net.normalization.is_set == normalize
    x = data.splits["train"].samples.x[:4]
    model.eval()
    mean, std = (data.statistics["mean"], data.statistics["std"]) if normalize else (0, 1)
    torch.testing.assert_close(model(x), model.net.net((x / 255 - mean) / std), rtol=1e-4, atol=1e-5)


def test_a_pretrained_backbone_is_loaded_and_frozen(tmp_path: Path) -> None:
    torch.manual_seed(3)
    name = "mobilenet_v3_small"
    torch.save(models.get_model(name, weights=None).state_dict(), tmp_path / "learned.pth")
    args = {"backbone": name, "weights": str(tmp_path / "learned.pth"), "unfreeze_epoch": 1}
    model = LitSiamese("LitTransfer", args, input_shape=(1, 28, 28))
    assert isinstance(model.net, LitTransfer)
    assert model.lr_factors() == {"net.net.head.": 1.0, "net.net.backbone.": 0.1}
    learned = torch.load(tmp_path / "learned.pth")["features.0.0.weight"]
    weight = model.net.net.get_parameter("backbone.features.0.0.weight")
    quiet_trainer(limit_train_batches=2).fit(model, TinyImages(batch_size=16))
    assert weight.equal(learned)
    keeper = ModelCheckpoint(tmp_path, "broken", every_n_train_steps=3)
    options: dict[str, Any] = {"limit_train_batches": 2, "max_epochs": 2, "callbacks": [keeper]}
    quiet_trainer(**options, enable_checkpointing=True).fit(model, TinyImages(batch_size=16))
    assert not weight.equal(learned)

    # A run that goes on within an epoch goes on with what is unfrozen.
    broken = tmp_path / "broken.ckpt"
    again = LitSiamese("LitTransfer", args, input_shape=(1, 28, 28))
    trainer = quiet_trainer(limit_train_batches=2, max_epochs=2)
    trainer.fit(again, TinyImages(batch_size=16), ckpt_path=broken, weights_only=True)
    assert trainer.global_step == 4
    name = "net.net.backbone.features.0.0.weight"
    assert not again.get_parameter(name).equal(torch.load(broken, weights_only=True)["state_dict"][name])


def test_missing_weights_are_reported_before_the_data_are_read() -> None:
    model = LitSiamese("LitTransfer", {"weights": "no/such.pth"}, input_shape=(1, 28, 28))
    with pytest.raises(ModelError, match=r"no/such\.pth"):
        model.prepare_weights()
