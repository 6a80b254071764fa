"""Networks of torchvision without their last layer, and what they have learned."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from lit_models import LitTransfer, ModelError
from lit_models.modules.backbones import make_backbone
from lit_models.modules.pretrained import FILES, is_file, read_weights, torchvision_weights

NAMES = models.list_models(module=models)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SIZES = {"inception_v3": 299}
# Features that the networks of a family have; of most, the head has them as its in_features.
FEATURES = {
    **{"alexnet": 4096, "vgg16": 4096, "resnet18": 512, "resnet50": 2048, "densenet121": 1024, "googlenet": 1024},
    **{"inception_v3": 2048, "squeezenet1_0": 512, "squeezenet1_1": 512, "mobilenet_v2": 1280, "maxvit_t": 512},
    **{"mobilenet_v3_small": 1024, "shufflenet_v2_x0_5": 1024, "efficientnet_b0": 1280, "efficientnet_b7": 2560},
    **{"convnext_tiny": 768, "swin_v2_b": 1024, "vit_b_16": 768, "vit_h_14": 1280, "mnasnet0_5": 1280},
    **{"regnet_y_400mf": 440, "regnet_y_128gf": 7392},
}


@pytest.fixture(autouse=True)
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def _weightless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep parameters without their numbers, so that hundreds of millions of them cost nothing."""
    register = nn.Module.register_parameter

    def without_numbers(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.detach().to("meta")))

    monkeypatch.setattr(nn.Module, "register_parameter", without_numbers)


# Networks


def test_these_are_all_that_classify_images() -> None:
    assert len(NAMES) == 80
    assert {"resnet18", "resnet50", "vgg16", "efficientnet_b0", "vit_b_16"} <= set(NAMES)


@pytest.mark.usefixtures("_weightless")
@pytest.mark.parametrize("name", NAMES)
def test_every_network_gives_features_in_the_place_of_its_last_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []

    def note(*args: Any) -> None:
        given.append(functional_call(*args))

    monkeypatch.setattr("lit_models.modules.backbones.functional_call", note)
    size = SIZES.get(name, 224)
    net, features = make_backbone(name, (3, size, size))
    assert net.training
    assert given[0].shape == (1, features)
    assert features == FEATURES.get(name, features)
    outputs = [getattr(layer, "out_features", getattr(layer, "out_channels", 0)) for layer in net.modules()]
    assert 1000 not in outputs  # the classes of ImageNet
    assert not any(key.startswith(("AuxLogits", "aux")) for key in net.state_dict())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 32),
        ("mobilenet_v3_small", 32),
        ("squeezenet1_1", 32),
        ("shufflenet_v2_x0_5", 32),
        ("vgg11", 32),
        ("googlenet", 32),
        ("vit_b_32", 32),
        ("regnet_y_400mf", 32),
        ("densenet121", 32),
    ],
)
def test_a_network_runs_forward_and_backward(name: str, size: int) -> None:
    net, features = make_backbone(name, (3, size, size))
    given = net(torch.randn(2, 3, size, size))
    assert given.shape == (2, features)
    assert given.std() > 0
    given.square().sum().backward()
    unused = [key for key, value in net.named_parameters() if value.grad is None]
    assert not unused
    assert sum(float(value.grad.abs().sum()) for value in net.parameters() if value.grad is not None) > 0


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "vit_b_32"])
def test_features_are_what_the_last_layer_got(name: str) -> None:
    size = 32
    options: dict[str, Any] = {"image_size": size} if name.startswith("vit") else {}
    whole = models.get_model(name, weights=None, **options).eval()
    net, _ = make_backbone(name, (3, size, size))
    net.load_state_dict(whole.state_dict(), strict=False)
    net.eval()
    got: list[Tensor] = []
    layers = {"resnet18": "fc", "vit_b_32": "heads.head", "squeezenet1_1": "classifier"}
    whole.get_submodule(layers[name]).register_forward_pre_hook(lambda _, args: got.append(args[0]))
    x = torch.randn(3, 3, size, size)
    with torch.no_grad():
        whole(x)
        expected = got[0].mean((2, 3)) if name == "squeezenet1_1" else got[0]
        torch.testing.assert_close(net(x), expected)


def test_a_look_at_a_network_leaves_it_untouched() -> None:
    net, _ = make_backbone("resnet18", (3, 32, 32))
    assert net.get_buffer("bn1.num_batches_tracked") == 0
    assert net.get_buffer("bn1.running_mean").eq(0).all()
    assert all(not parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("vgg11", (3, 16, 16), "vgg11 cannot take images of 16x16 pixels"),
        ("vit_b_16", (3, 40, 40), "vit_b_16 cannot take images of 40x40 pixels"),
        ("vit_b_16", (3, 32, 48), "vit_b_16 cannot take images of 32x48 pixels"),
        ("maxvit_t", (3, 30, 30), "maxvit_t cannot take images of 30x30 pixels"),
        ("inception_v3", (3, 32, 32), "inception_v3 cannot take images of 32x32 pixels"),
        ("resnet18", (3, 0, 0), "resnet18 cannot take images of 0x0 pixels"),
        ("resnet18", (2, 32, 32), "takes images of 3 channels, or of 1"),
        ("resnet18", (64,), "takes images of 3 channels, or of 1"),
        ("resnet18", (3, 32), "takes images of 3 channels, or of 1"),
    ],
)
def test_impossible_images_are_refused(name: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ModelError, match=r"^input_shape=\[") as refused:
        make_backbone(name, shape)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 48, 32)])
def test_oblong_images_are_fine_where_nothing_forbids_them(shape: tuple[int, ...]) -> None:
    net, features = make_backbone("mobilenet_v3_small", shape)
    assert net.eval()(torch.zeros(1, 3, *shape[1:])).shape == (1, features)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "did you mean resnet18"),
        ("ResNet18", "did you mean resnet18"),
        ("efficientnet-b0", "did you mean efficientnet_b0"),
        ("zzz", "give resnet18, vgg16"),
        ("fcn_resnet50", "did you mean "),  # it is torchvision's, but for segmentation
        ("", "give resnet18, vgg16"),
    ],
)
def test_an_unknown_network_is_refused_with_a_hint(name: str, hint: str) -> None:
    for ask in (lambda: make_backbone(name, (3, 32, 32)), lambda: torchvision_weights(name, "DEFAULT")):
        with pytest.raises(ModelError, match=r"^backbone='") as refused:
            ask()
        assert hint in str(refused.value)
        assert len(str(refused.value)) < 200


# Weights


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_say_all_that_is_needed_of_them(name: str) -> None:
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
def test_published_weights_go_by_any_of_their_names(weights: str) -> None:
    assert torchvision_weights("resnet18", weights) is models.ResNet18_Weights.IMAGENET1K_V1


@pytest.mark.parametrize("weights", ["IMAGENET1K_V9", "default", "", "resnet18"])
def test_unknown_ones_are_refused_with_those_that_there_are(weights: str) -> None:
    with pytest.raises(ModelError, match=rf"^weights='{weights}': resnet18 has IMAGENET1K_V1, DEFAULT") as error:
        torchvision_weights("resnet18", weights)
    assert "a file that ends in .pth" in str(error.value)


@pytest.mark.parametrize("ending", FILES)
def test_a_file_goes_by_its_ending(ending: str) -> None:
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
def test_weights_are_read_as_they_are_whatever_wraps_their_names(tmp_path: Path, file: str, prefix: str) -> None:
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
def test_weights_are_found_beside_other_things(tmp_path: Path, key: str) -> None:
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
def test_what_is_no_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no weights can be read from"):
        read_weights("resnet18", str(tmp_path / "w.pth"))


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a file."""
        return (Path("harm").touch, ())


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": torch.zeros(1), "more": Harmful()}, "w.pth")
    with pytest.raises(ModelError, match="no weights can be read from"):
        read_weights("resnet18", "w.pth")
    assert not Path("harm").exists()
