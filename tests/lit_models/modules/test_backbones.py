"""Networks of torchvision without their last layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from lit_models import ModelError
from lit_models.modules.backbones import make_backbone, torchvision_weights

NAMES = models.list_models(module=models)
SIZES = {"inception_v3": 299}
# Features that the networks of a family have; of most, the head has them as its in_features.
FEATURES = {
    **{"alexnet": 4096, "vgg16": 4096, "resnet18": 512, "resnet50": 2048, "densenet121": 1024, "googlenet": 1024},
    **{"inception_v3": 2048, "squeezenet1_0": 512, "squeezenet1_1": 512, "mobilenet_v2": 1280, "maxvit_t": 512},
    **{"mobilenet_v3_small": 1024, "shufflenet_v2_x0_5": 1024, "efficientnet_b0": 1280, "efficientnet_b7": 2560},
    **{"convnext_tiny": 768, "swin_v2_b": 1024, "vit_b_16": 768, "vit_h_14": 1280, "mnasnet0_5": 1280},
    **{"regnet_y_400mf": 440, "regnet_y_128gf": 7392},
}


pytestmark = pytest.mark.usefixtures("torch_home")


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
