"""torchvision's transforms by name, on batches."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datamodules.errors import DataError
from datamodules.images.transforms import Config, build, is_random, transform_batch
from tests.helpers.transforms import OPTION, both, channels_too, config_of, levels_between, run_transform, smooth_images


class AddNoise(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """A transform of the user's own, which draws in `transform`."""

    def __init__(self, size: float = 1.0, **kwargs: int) -> None:
        super().__init__()
        self.size = size
        self.kwargs = kwargs

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Add one number to an image."""
        return inpt + self.size * torch.rand(()).to(inpt.device)


class MakeText(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """A transform that returns no image."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> str:
        """Return a text."""
        return "text"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Every transform of v2 for images, with arguments for images of 40 x 56.
RANDOM: dict[str, dict[str, Any]] = {
    "AugMix": {},
    "AutoAugment": {"policy": "cifar10"},
    "ColorJitter": {"brightness": 0.5, "contrast": [0.5, 1.5], "saturation": 0.5, "hue": 0.3},
    "ElasticTransform": {"alpha": 80.0},
    "GaussianBlur": {"kernel_size": 5, "sigma": [0.1, 3.0]},
    "GaussianNoise": {},
    "RandAugment": {"num_ops": 3, "magnitude": 12},
    "RandomAdjustSharpness": {"sharpness_factor": 3},
    "RandomAffine": {"degrees": 30, "translate": [0.2, 0.2], "interpolation": "BILINEAR"},
    "RandomApply": {"transforms": ["RandomVerticalFlip", config_of("ColorJitter", hue=0.4)]},
    "RandomAutocontrast": {},
    "RandomChannelPermutation": {},
    "RandomChoice": {"transforms": ["RandomInvert", config_of("CenterCrop", size=[40, 56])]},
    "RandomCrop": {"size": [40, 50], "padding": [4, 2], "fill": [9, 8, 7]},
    "RandomEqualize": {},
    "RandomErasing": {"p": 0.7, "value": "random"},
    "RandomGrayscale": {"p": 0.5},
    "RandomHorizontalFlip": {},
    "RandomInvert": {},
    "RandomOrder": {"transforms": [config_of("RandomSolarize", threshold=0.5), "RandomInvert"]},
    "RandomPerspective": {"distortion_scale": 0.4, "p": 0.8},
    "RandomPhotometricDistort": {},
    "RandomPosterize": {"bits": 2},
    "RandomResizedCrop": {"size": 24},
    "RandomRotation": {"degrees": 45},
    "RandomSolarize": {"threshold": 0.5},
    "RandomVerticalFlip": {},
    "TrivialAugmentWide": {},
}
FIXED: dict[str, dict[str, Any]] = {
    "CenterCrop": {"size": [20, 70]},
    "Compose": {"transforms": [config_of("Resize", size=24), "RGB"]},
    "ConvertImageDtype": {"dtype": "float32"},
    "Grayscale": {"num_output_channels": 3},
    "Identity": {},
    "Pad": {"padding": 3, "padding_mode": "reflect"},
    "PILToTensor": {},
    "RGB": {},
    "Resize": {"size": [24, 30], "interpolation": "BICUBIC"},
    "ToDtype": {"dtype": "torch.float32", "scale": True},
    "ToImage": {},
    "ToPureTensor": {},
    "ToTensor": {},  # does nothing to tensors
}
UINT8 = {"JPEG": {"quality": [5, 50]}}  # it takes nothing else
UNEVEN: dict[str, dict[str, Any]] = {  # they give every image a size of its own
    "RandomResize": {"min_size": 20, "max_size": 60},
    "RandomShortestSize": {"min_size": [20, 30, 40]},
    "RandomZoomOut": {},
    "ScaleJitter": {"target_size": [40, 40]},
}
REFUSED = {
    "Normalize": "give `normalize` instead",  # the model's part
    "MixUp": "labels",  # they need the labels
    "CutMix": "labels",
    "FiveCrop": "several images",  # many images out of one
    "TenCrop": "several images",
    "Lambda": "import path",  # a function is no primitive
    "LinearTransformation": "import path",  # a tensor is none either
    "ToPILImage": "one tensor",
    "UniformTemporalSubsample": "videos",
    "RandomIoUCrop": "bounding boxes",
    "SanitizeBoundingBoxes": "bounding boxes",
    "ClampBoundingBoxes": "bounding boxes",
    "ConvertBoundingBoxFormat": "bounding boxes",
    "SetClampingMode": "bounding boxes",
    "SanitizeKeyPoints": "key points",
    "ClampKeyPoints": "key points",
}


def test_every_transform_of_torchvision_is_accounted_for() -> None:
    there = {name for name, cls in vars(v2).items() if inspect.isclass(cls) and issubclass(cls, v2.Transform)}
    assert there == {"Transform", *RANDOM, *FIXED, *UINT8, *UNEVEN, *REFUSED}


@both
@pytest.mark.parametrize(("name", "args"), [*RANDOM.items(), *UINT8.items()])
def test_a_random_transform_draws_for_every_sample(name: str, args: dict[str, Any], dtype: torch.dtype) -> None:
    if name == "JPEG" and dtype != torch.uint8:
        pytest.skip("torchvision has it for uint8 alone")
    x = smooth_images(1, dtype=dtype).expand(24, -1, -1, -1).clone()
    before = x.clone()
    transforms = build([config_of(name, **args)], OPTION)
    assert is_random(transforms)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(transform_batch(transforms, x))
    y, again, other = results
    assert (y.dtype, len(y), y.ndim) == (dtype, 24, 4)
    assert type(y) is Tensor
    assert y.equal(again)
    assert not y.equal(other)
    assert len(y.unique(dim=0)) > 1
    assert x.equal(before)


@both
@pytest.mark.parametrize(("name", "args"), FIXED.items())
@pytest.mark.filterwarnings("ignore:The transform `ToTensor")
def test_a_fixed_transform_is_torchvisions_on_the_batch(name: str, args: dict[str, Any], dtype: torch.dtype) -> None:
    x = smooth_images(dtype=dtype)
    transforms = build([config_of(name, **args)], OPTION)
    assert not is_random(transforms)
    y = transform_batch(transforms, x)
    assert type(y) is Tensor
    assert y.equal(transforms[0](x))
    torch.manual_seed(5)
    assert y.equal(transform_batch(transforms, x))


@pytest.mark.parametrize(("name", "args"), UNEVEN.items())
def test_sizes_may_differ_until_a_resize(name: str, args: dict[str, Any]) -> None:
    x = smooth_images()
    assert run_transform(x, "Compose", transforms=[config_of(name, **args), config_of("Resize", size=[16, 24])]).shape[
        2:
    ] == (
        16,
        24,
    )
    sized = [config_of("RandomCrop", size=20, pad_if_needed=True), "RandomHorizontalFlip"]
    assert transform_batch(build([config_of(name, **args), *sized], OPTION), x).shape == (8, 3, 20, 20)
    for last in ([], ["RandomInvert"]):
        with pytest.raises(DataError, match=f"^{name} leaves images of different sizes .* Resize or a crop") as error:
            transform_batch(build([config_of(name, **args), *last], OPTION), x)
        assert "\n" not in str(error.value)


def test_the_size_may_differ_in_a_part_of_the_batch() -> None:
    some = config_of("RandomApply", transforms=[config_of("Resize", size=[16, 24])])
    with pytest.raises(DataError, match=r"^RandomApply leaves images of different sizes"):
        transform_batch(build([some], OPTION), smooth_images(24))
    x = smooth_images(24)
    assert transform_batch(build([some, config_of("Resize", size=[20, 28])], OPTION), x).shape == (24, 3, 20, 28)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_for_batches_of_images_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"^{OPTION}: {name} cannot be used here: .*{REFUSED[name]}") as error:
        build([config_of("RandomApply", transforms=[name])], OPTION)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("RandomHorizontalFlop", "has no 'RandomHorizontalFlop'; did you mean RandomHorizontalFlip?"),
        ("randomcrop", "has no 'randomcrop'; did you mean RandomCrop?"),
        ("Xyzzy", "has no 'Xyzzy'; give a class of your own by its import path"),
        ("functional", "has no 'functional'; give"),
        ("no_such_module.Flip", "no_such_module.Flip cannot be imported (No module named 'no_such_module')"),
        ("..Flip", "cannot be imported"),
        ("torch.nn.NoSuch", "cannot be imported (module 'torch.nn' has no attribute 'NoSuch')"),
        ("torch.nn.Flatten", "not a torchvision.transforms.v2.Transform; derive it from that"),
        ("torchvision.transforms.RandomCrop", "not a torchvision.transforms.v2.Transform; write RandomCrop alone"),
        ("torchvision.transforms.v2.Transform", "derive it"),
        ("math.pi", "not a torchvision.transforms.v2.Transform"),
        (config_of("RandomCrop", sise=3), "RandomCrop has no argument 'sise'; did you mean size?"),
        (config_of("RandomCrop", q=3), "RandomCrop has no argument 'q'; there are size, padding, pad_if_needed"),
        (config_of("Identity", p=3), "Identity has no argument 'p'; it takes none"),
        ("RandomCrop", "RandomCrop: RandomCrop.__init__() missing 1 required positional argument: 'size'; correct"),
        (config_of("RandomHorizontalFlip", p=2.0), "value in the interval [0.0, 1.0]; correct its init_args"),
        (config_of("RandomCrop", size=[1, 2, 3]), "Please provide only two dimensions (h, w) for size; correct"),
        (
            config_of("Resize", size=3, interpolation="linear"),
            "'linear' is not a known interpolation; give one of nearest,",
        ),
        (config_of("ToDtype", dtype="float33"), "'float33' is not a known dtype; give one of uint8,"),
        (
            config_of("AutoAugment", policy="mnist"),
            "'mnist' is not a known policy; give one of imagenet, cifar10, svhn",
        ),
        (config_of("RandomApply", transforms=["Flop"]), "has no 'Flop'"),
        (config_of("RandomApply", transforms=[]), "Pass at least one transform; correct"),
        ({"class": "RandomCrop"}, "{'class': 'RandomCrop'} is not a transform; give a class name, or class_path"),
        ({"class_path": "RandomCrop", "size": 3}, "is not a transform; give"),
        ({"class_path": "RandomCrop", "init_args": 3}, "is not a transform; give"),
        ({}, "{} is not a transform"),
        (3, "3 is not a transform"),
    ],
)
def test_a_bad_config_is_one_line_that_names_option_fault_and_remedy(config: Config, message: str) -> None:
    with pytest.raises(DataError) as error:
        build([config], OPTION)
    line = str(error.value)
    assert line.startswith(f"{OPTION}: ")
    assert message in line
    assert "\n" not in line


def test_a_single_config_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(DataError, match=r"give \['RandomCrop'\]"):
        build("RandomCrop", OPTION)


def test_transforms_may_be_nested_and_named_by_import_path() -> None:
    choice = config_of(
        "torchvision.transforms.v2.RandomChoice", transforms=["RGB", config_of("Compose", transforms=["RGB"])]
    )
    own = f"{__name__}.AddNoise"
    outer, noise = build([config_of("Compose", transforms=[choice, own]), config_of(own, size=3, odd=4)], OPTION)
    assert [type(part) for part in outer.transforms] == [v2.RandomChoice, AddNoise]
    assert [type(part) for part in outer.transforms[0].transforms] == [v2.RGB, v2.Compose]
    assert (noise.size, noise.kwargs) == (3, {"odd": 4})
    assert is_random([v2.Compose([v2.RGB(), v2.Compose([noise])])])
    assert not is_random([v2.Compose([v2.RGB()])])
    assert not is_random([])


def test_names_become_the_objects_that_torchvision_wants() -> None:
    resize, to, auto = build(
        [
            config_of("Resize", size=3, interpolation="NEAREST_EXACT"),
            config_of("ToDtype", dtype="torch.float16"),
            config_of("AutoAugment", policy="svhn"),
        ],
        OPTION,
    )
    assert resize.interpolation is v2.InterpolationMode.NEAREST_EXACT
    assert to.dtype is torch.float16
    assert auto.policy is v2.AutoAugmentPolicy.SVHN


def test_an_own_class_runs_for_every_sample() -> None:
    x = smooth_images(dtype=torch.float32)
    shift = (run_transform(x, f"{__name__}.AddNoise", size=2.0) - x).flatten(1)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    assert len(shift[:, 0].unique()) == 8


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("RandomCrop", {"size": 60}, r"Required crop size \(60, 60\) is larger than input image size"),
        ("RandomErasing", {"p": 1.0, "value": [1, 2]}, "a single value or 3"),
        ("Resize", {"size": 8, "max_size": 4}, "max_size = 4 must be strictly greater"),
        (f"{__name__}.MakeText", {}, "does not make one tensor"),
    ],
)
def test_images_that_a_transform_cannot_take_are_one_line(name: str, args: dict[str, Any], message: str) -> None:
    shape = r"uint8 images of shape \(3, 40, 56\)"
    with pytest.raises(DataError, match=f"{name.split('.')[-1]} cannot change {shape} .*{message}.*; correct") as error:
        run_transform(smooth_images(), name, **args)
    assert "\n" not in str(error.value)


def test_colors_of_other_channels_are_refused_in_torchvisions_words() -> None:
    with pytest.raises(DataError, match=r"^ColorJitter cannot change .* permitted channel values are 1 or 3"):
        run_transform(smooth_images(channels=4), "ColorJitter", brightness=0.5)


@both
@channels_too
@pytest.mark.parametrize(
    ("name", "args", "one"),
    [
        ("RandomHorizontalFlip", {}, F.horizontal_flip),
        ("RandomVerticalFlip", {}, F.vertical_flip),
        ("RandomInvert", {}, F.invert),
        ("RandomEqualize", {}, F.equalize),
        ("RandomAutocontrast", {}, F.autocontrast),
        ("RandomAdjustSharpness", {"sharpness_factor": 2.0}, lambda x: F.adjust_sharpness(x, 2.0)),
        ("RandomApply", {"transforms": [config_of("Pad", padding=2), config_of("CenterCrop", size=[40, 56])]}, None),
        ("RandomApply", {"transforms": [config_of("RandomInvert", p=1.0)]}, F.invert),
    ],
)
def test_the_asked_share_is_changed_and_the_rest_is_kept(
    name: str, args: dict[str, Any], one: Callable[[Tensor], Tensor] | None, channels: int, dtype: torch.dtype
) -> None:
    x = smooth_images(4, channels, dtype).repeat(100, 1, 1, 1)
    y = run_transform(x, name, **args, p=0.3)
    kept = (y == x).flatten(1).all(1)
    if one is None:
        assert kept.all()
        return
    changed = torch.tensor([levels_between(a, one(b)) < 1e-3 for a, b in zip(y, x, strict=True)])
    assert (kept ^ changed).all()
    assert 75 < changed.sum() < 165  # 120, five standard deviations to each side


@pytest.mark.parametrize("high", [600, 20])
def test_a_batch_is_worked_on_in_parts_without_a_trace(high: int) -> None:
    x = smooth_images(12, high=high)
    steps = [
        config_of("RandomHorizontalFlip", p=1.0),
        config_of("RandomErasing", p=0.0),
        config_of("RandomGrayscale", p=1.0),
    ]
    y = transform_batch(build(steps, OPTION), x)
    assert y.equal(F.rgb_to_grayscale(F.horizontal_flip(x), 3))


def test_half_and_double_precision_stay() -> None:
    steps = [
        config_of("RandomResizedCrop", size=[24, 30]),
        config_of("RandomRotation", degrees=20, interpolation="bilinear"),
        config_of("ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2),
        "RandomErasing",
    ]
    for dtype in (torch.float16, torch.float64):
        y = transform_batch(build(steps, OPTION), smooth_images(dtype=dtype))
        assert (y.dtype, y.shape) == (dtype, (8, 3, 24, 30))
        assert y.min() >= 0
        assert y.max() <= 1
