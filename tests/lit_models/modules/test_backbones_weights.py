"""Pretrained weights: how they are named, found, read and loaded."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from lit_models import LitConvNet, LitTransfer, ModelError
from lit_models.modules import backbones
from lit_models.modules.backbones import FILES, is_file, read_weights, torchvision_weights, why_unavailable
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer
from tests.helpers.transfer import (
    BACKBONE,
    PUBLISHED,
    Harmful,
    State,
    backbone_state,
    is_equal_to,
    make_transfer,
    tiny_images,
)

NAMES = models.list_models(module=models)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

pytestmark = pytest.mark.usefixtures("torch_home")


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_have_statistics_sizes_and_a_hash(name: str) -> None:
    known = torchvision_weights(name, "DEFAULT")
    prepared = known.transforms()
    assert len(prepared.mean) == len(prepared.std) == 3
    assert len(prepared.crop_size) == len(prepared.resize_size) == 1
    assert re.fullmatch(
        r".+-[0-9a-f]{8,}\.pth", known.url.rpartition("/")[2]
    )  # digits of a hash, checked after loading


@pytest.mark.parametrize(
    "weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"]
)
def test_published_weights_have_several_names(weights: str) -> None:
    assert torchvision_weights("resnet18", weights) is models.ResNet18_Weights.IMAGENET1K_V1


@pytest.mark.parametrize("weights", ["IMAGENET1K_V9", "default", "", "resnet18"])
def test_unknown_names_of_weights_are_refused_with_the_known_ones(weights: str) -> None:
    with pytest.raises(ModelError, match=rf"^weights='{weights}': resnet18 has IMAGENET1K_V1, DEFAULT") as error:
        torchvision_weights("resnet18", weights)
    assert "a file that ends in .pth" in str(error.value)


@pytest.mark.parametrize("ending", FILES)
def test_a_file_is_recognized_by_its_suffix(ending: str) -> None:
    assert is_file(f"some/where{ending}")
    assert torchvision_weights("resnet18", f"some/where{ending}") is models.ResNet18_Weights.DEFAULT
    assert not is_file("DEFAULT")


def _write(path: Path, state: dict[str, Tensor]) -> str:
    if path.suffix == ".safetensors":
        save_file({key: value.clone() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("file", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed_from_names(tmp_path: Path, file: str, prefix: str) -> None:
    state = {"fc.weight": torch.randn(2, 3), "conv1.weight": torch.randn(4, 5)}
    path = _write(tmp_path / file, {prefix + key: value for key, value in state.items()})
    found = read_weights("resnet18", path)
    torch.testing.assert_close(dict(found.state), state, rtol=0, atol=0)
    for values, expected in zip((found.mean, found.std), IMAGENET, strict=True):
        torch.testing.assert_close(values, torch.tensor(expected).view(3, 1, 1))


def test_a_file_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "w.pth")
    assert read_weights("resnet18", "~/w.pth").state["conv1.weight"].equal(torch.ones(2))
    assert LitTransfer.preprocessing("resnet18", "~/w.pth")["image_size"] == 224


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_are_found_within_a_training_state(tmp_path: Path, key: str) -> None:
    state = {"conv1.weight": torch.randn(4, 5)}
    torch.save({key: {**state, "names": "none"}, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    torch.testing.assert_close(dict(read_weights("resnet18", str(tmp_path / "w.pth")).state), state)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("resnet18", ".pth"),
        ("resnet18", ".safetensors"),
        ("densenet121", ".pth"),
        ("mnasnet0_5", ".pth"),
        ("mnasnet0_5", ".safetensors"),
        ("vit_b_32", ".pth"),
    ],
)
def test_files_are_read_as_torchvision_published_them(tmp_path: Path, name: str, ending: str) -> None:
    """Before 2019 batch norms counted nothing, DenseNets had points in their names, ViTs' perceptrons had others."""
    whole = models.get_model(name, weights=None)
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])\.", r"\1.\2.", key)
        .replace("mlp.0.", "mlp.linear_1.")
        .replace("mlp.3.", "mlp.linear_2."): value + 1
        for key, value in whole.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert state.keys() != whole.state_dict().keys()
    model = LitTransfer(name, _write(tmp_path / f"w{ending}", state), (3, 224, 224))
    model.load_weights()
    for key, value in model.net.backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, whole.state_dict()[key] + 1, rtol=0, atol=0)


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(3)], torch.zeros(3), None, 5, "text"],
    ids=["list", "tensor", "none", "number", "text"],
)
def test_a_file_without_a_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no weights can be read from"):
        read_weights("resnet18", str(tmp_path / "w.pth"))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": torch.zeros(1), "more": Harmful()}, "w.pth")
    with pytest.raises(ModelError, match="no weights can be read from"):
        read_weights("resnet18", "w.pth")
    assert not Path("harm").exists()


# Loading


def _bad(tmp_path: Path, learned: State, what: str) -> str:
    path = tmp_path / f"{what}.pth"
    if what == "text":
        path.write_text("these are not the weights you are looking for\n")
    elif what == "empty":
        path.touch()
    elif what == "truncated":
        torch.save(learned, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif what == "list":
        torch.save([1, 2], path)
    elif what == "numbers":
        torch.save(dict.fromkeys(learned, 1), path)
    elif what == "nested":
        torch.save({"state_dict": {"state_dict": [1]}}, path)
    elif what == "no-names":
        torch.save(dict(enumerate(learned.values())), path)
    elif what == "no-dictionary-in-it":
        torch.save({"state_dict": [1, 2]}, path)
    elif what == "module":
        torch.save(models.get_model(BACKBONE, weights=None), path)
    elif what == "harmful":
        torch.save({**learned, "harm": Harmful()}, path)
    elif what == "resnet18":
        torch.save(models.get_model("resnet18", weights=None).state_dict(), path)
    elif what == "mobilenet_v3_large":  # of which many tensors have the same names
        torch.save(models.get_model(what, weights=None).state_dict(), path)
    elif what == "nan":
        torch.save({**learned, "classifier.0.weight": learned["classifier.0.weight"] * float("nan")}, path)
    elif what == "folder":
        path.mkdir()
    elif what == "text-safetensors":
        path = tmp_path / "text.safetensors"
        path.write_text("no")
    elif what == "convnet":
        path = tmp_path / "convnet.ckpt"
        trainer = quiet_trainer()
        trainer.fit(LitConvNet(channels=[4]), tiny_images())
        trainer.save_checkpoint(path)
    return str(path)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "there is no such file"),
        ("text", "no weights can be read from"),
        ("harmful", "no weights can be read from"),
        ("no-names", f"these are not the weights of {BACKBONE}"),
        ("convnet", "a checkpoint of another model; give one of LitTransfer"),
    ],
)
def test_a_file_without_weights_is_refused_in_one_line(
    tmp_path: Path, learned: State, mistake: Callable[[str], str], what: str, said: str
) -> None:
    path = _bad(tmp_path, learned, what)
    line = mistake(
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {path} --data tests.helpers.tiny.TinyImages "
        "--max_epochs 1"
    )
    assert said in line
    assert f"--model.weights {path}" in line
    assert "\033" not in line  # no colors
    assert len(line) < 600
    assert not list(Path().iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("empty", "no weights can be read from"),
        ("truncated", "no weights can be read from"),
        ("list", "no weights can be read from"),
        ("folder", "there is no such file"),
        ("module", "no weights can be read from"),
        ("no-dictionary-in-it", f"these are not the weights of {BACKBONE}"),
        ("text-safetensors", "no weights can be read from"),
        ("numbers", f"these are not the weights of {BACKBONE}"),
        ("nested", f"these are not the weights of {BACKBONE}"),
        ("resnet18", f"these are not the weights of {BACKBONE}"),
        ("mobilenet_v3_large", f"these are not the weights of {BACKBONE}"),
        ("nan", "classifier.0.weight holds NaN or infinity"),
    ],
)
def test_a_file_without_weights_is_refused_in_a_notebook_too(
    tmp_path: Path, learned: State, what: str, said: str
) -> None:
    path = _bad(tmp_path, learned, what)
    model = make_transfer(path)
    with pytest.raises(ModelError, match=f"^weights='{path}': ") as refused:
        model.load_weights()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not model.has_weights


def test_a_failed_download_says_where_to_put_the_file(
    mistake: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch, learned: State, weights_file: str
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    line = f"--model LitTransfer --model.backbone {BACKBONE} --data tests.helpers.tiny.TinyImages --fast_dev_run true"
    said = mistake(line)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    assert f"--model.weights DEFAULT: {PUBLISHED.url} cannot be downloaded" in said
    assert f"put that file into {folder}" in said
    assert not list(Path().iterdir())
    assert not list(folder.iterdir())
    torch.save(learned, folder / PUBLISHED.url.rpartition("/")[2])
    model = run(line).model
    assert isinstance(model, LitTransfer)
    assert is_equal_to(backbone_state(model), learned)


def _answer(kind: str) -> Callable[..., object]:
    """Return what takes the place of a request to a server that answers in some way."""

    def answer(*_: object, **__: object) -> object:
        if kind == "hangs":
            time.sleep(1)
        if kind == "absent":
            raise URLError("Name or service not known")
        return open("/dev/null", "rb")

    return answer


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("there", ""),
        ("absent", "resnet18-f37072fd.pth is not in {folder}, and cannot be downloaded: Name or service not known"),
        ("hangs", "resnet18-f37072fd.pth is not in {folder}, and cannot be downloaded: no answer in 0.1 s"),
    ],
)
def test_whether_weights_can_be_had_is_known_soon(kind: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "urlopen", _answer(kind))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    assert why_unavailable("resnet18", seconds=0.1 if kind == "hangs" else 5.0) == reason.format(folder=folder)


def test_weights_that_are_here_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "urlopen", _answer("absent"))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resnet18-f37072fd.pth").touch()
    assert why_unavailable("resnet18") == ""
    with pytest.raises(ModelError, match="did you mean"):
        why_unavailable("resnet19")
