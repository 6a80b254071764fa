"""torchvision's transforms by name, on batches."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datamodules.errors import DataError
from datamodules.images.batched import crop, draw_resized_crop, erase, jitter, resized_crop, rotate
from datamodules.images.transforms import Config, build, is_random, transform_batch

FLAG = "--data.train_transforms"
HIGH, WIDE = 40, 56


class Elsewhere(Tensor):
    """A tensor that says it is not on the CPU, so that what an accelerator would run can be tested here."""

    is_cpu = False


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
    """A transform that gives no image."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> str:
        """Give a text."""
        return "text"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _images(batch: int = 8, channels: int = 3, dtype: torch.dtype = torch.uint8, high: int = HIGH) -> Tensor:
    """Smooth images, each of its own, as filters are compared best on those."""
    small = torch.rand(batch, channels, 5, 7)
    x = torch.nn.functional.interpolate(small, (high, WIDE), mode="bilinear").mul(255).round().to(torch.uint8)
    return x if dtype == torch.uint8 else x.to(dtype) / 255


def _config(name: str, **args: Any) -> Config:
    return {"class_path": name, "init_args": args} if args else name


def _run(x: Tensor, name: str, **args: Any) -> Tensor:
    return transform_batch(build([_config(name, **args)], FLAG), x)


def _levels(a: Tensor, b: Tensor) -> float:
    """Largest difference, in gray levels of 256."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return float((a.double() - b.double()).abs().max()) * (255 if a.is_floating_point() else 1)


both = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
channels_too = pytest.mark.parametrize("channels", [1, 3])

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
    "RandomApply": {"transforms": ["RandomVerticalFlip", _config("ColorJitter", hue=0.4)]},
    "RandomAutocontrast": {},
    "RandomChannelPermutation": {},
    "RandomChoice": {"transforms": ["RandomInvert", _config("CenterCrop", size=[40, 56])]},
    "RandomCrop": {"size": [40, 50], "padding": [4, 2], "fill": [9, 8, 7]},
    "RandomEqualize": {},
    "RandomErasing": {"p": 0.7, "value": "random"},
    "RandomGrayscale": {"p": 0.5},
    "RandomHorizontalFlip": {},
    "RandomInvert": {},
    "RandomOrder": {"transforms": [_config("RandomSolarize", threshold=0.5), "RandomInvert"]},
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
    "Compose": {"transforms": [_config("Resize", size=24), "RGB"]},
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
    "Normalize": "give --data.normalize instead",  # the model's part
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
    x = _images(1, dtype=dtype).expand(24, -1, -1, -1).clone()
    before = x.clone()
    transforms = build([_config(name, **args)], FLAG)
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
    x = _images(dtype=dtype)
    transforms = build([_config(name, **args)], FLAG)
    assert not is_random(transforms)
    y = transform_batch(transforms, x)
    assert type(y) is Tensor
    assert y.equal(transforms[0](x))
    torch.manual_seed(5)
    assert y.equal(transform_batch(transforms, x))


@pytest.mark.parametrize(("name", "args"), UNEVEN.items())
def test_sizes_may_differ_until_a_resize(name: str, args: dict[str, Any]) -> None:
    x = _images()
    assert _run(x, "Compose", transforms=[_config(name, **args), _config("Resize", size=[16, 24])]).shape[2:] == (
        16,
        24,
    )
    sized = [_config("RandomCrop", size=20, pad_if_needed=True), "RandomHorizontalFlip"]
    assert transform_batch(build([_config(name, **args), *sized], FLAG), x).shape == (8, 3, 20, 20)
    for last in ([], ["RandomInvert"]):
        with pytest.raises(DataError, match=f"^{name} leaves images of different sizes .* Resize or a crop") as error:
            transform_batch(build([_config(name, **args), *last], FLAG), x)
        assert "\n" not in str(error.value)


def test_the_size_may_differ_in_a_part_of_the_batch() -> None:
    some = _config("RandomApply", transforms=[_config("Resize", size=[16, 24])])
    with pytest.raises(DataError, match=r"^RandomApply leaves images of different sizes"):
        transform_batch(build([some], FLAG), _images(24))
    x = _images(24)
    assert transform_batch(build([some, _config("Resize", size=[20, 28])], FLAG), x).shape == (24, 3, 20, 28)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_for_batches_of_images_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"^{FLAG}: {name} cannot be used here: .*{REFUSED[name]}") as error:
        build([_config("RandomApply", transforms=[name])], FLAG)
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
        ("torch.nn.Flatten", "no torchvision.transforms.v2.Transform; derive it from that"),
        ("torchvision.transforms.RandomCrop", "no torchvision.transforms.v2.Transform; write RandomCrop alone"),
        ("torchvision.transforms.v2.Transform", "derive it"),
        ("math.pi", "no torchvision.transforms.v2.Transform"),
        (_config("RandomCrop", sise=3), "RandomCrop has no argument 'sise'; did you mean size?"),
        (_config("RandomCrop", q=3), "RandomCrop has no argument 'q'; there are size, padding, pad_if_needed"),
        (_config("Identity", p=3), "Identity has no argument 'p'; it takes none"),
        ("RandomCrop", "RandomCrop: RandomCrop.__init__() missing 1 required positional argument: 'size'; mend"),
        (_config("RandomHorizontalFlip", p=2.0), "value in the interval [0.0, 1.0]; mend its init_args"),
        (_config("RandomCrop", size=[1, 2, 3]), "Please provide only two dimensions (h, w) for size; mend"),
        (_config("Resize", size=3, interpolation="linear"), "'linear' is no interpolation; give one of nearest,"),
        (_config("ToDtype", dtype="float33"), "'float33' is no dtype; give one of uint8,"),
        (_config("AutoAugment", policy="mnist"), "'mnist' is no policy; give one of imagenet, cifar10, svhn"),
        (_config("RandomApply", transforms=["Flop"]), "has no 'Flop'"),
        (_config("RandomApply", transforms=[]), "Pass at least one transform; mend"),
        ({"class": "RandomCrop"}, "{'class': 'RandomCrop'} is no transform; give a class name, or class_path"),
        ({"class_path": "RandomCrop", "size": 3}, "is no transform; give"),
        ({"class_path": "RandomCrop", "init_args": 3}, "is no transform; give"),
        ({}, "{} is no transform"),
        (3, "3 is no transform"),
    ],
)
def test_a_bad_config_is_one_line_that_names_flag_fault_and_remedy(config: Config, message: str) -> None:
    with pytest.raises(DataError) as error:
        build([config], FLAG)
    line = str(error.value)
    assert line.startswith(f"{FLAG}: ")
    assert message in line
    assert "\n" not in line


def test_a_single_config_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(DataError, match=r"give \['RandomCrop'\]"):
        build("RandomCrop", FLAG)


def test_transforms_may_be_nested_and_named_by_import_path() -> None:
    choice = _config(
        "torchvision.transforms.v2.RandomChoice", transforms=["RGB", _config("Compose", transforms=["RGB"])]
    )
    own = f"{__name__}.AddNoise"
    outer, noise = build([_config("Compose", transforms=[choice, own]), _config(own, size=3, odd=4)], FLAG)
    assert [type(part) for part in outer.transforms] == [v2.RandomChoice, AddNoise]
    assert [type(part) for part in outer.transforms[0].transforms] == [v2.RGB, v2.Compose]
    assert (noise.size, noise.kwargs) == (3, {"odd": 4})
    assert is_random([v2.Compose([v2.RGB(), v2.Compose([noise])])])
    assert not is_random([v2.Compose([v2.RGB()])])
    assert not is_random([])


def test_names_become_the_objects_that_torchvision_wants() -> None:
    resize, to, auto = build(
        [
            _config("Resize", size=3, interpolation="NEAREST_EXACT"),
            _config("ToDtype", dtype="torch.float16"),
            _config("AutoAugment", policy="svhn"),
        ],
        FLAG,
    )
    assert resize.interpolation is v2.InterpolationMode.NEAREST_EXACT
    assert to.dtype is torch.float16
    assert auto.policy is v2.AutoAugmentPolicy.SVHN


def test_an_own_class_runs_for_every_sample() -> None:
    x = _images(dtype=torch.float32)
    shift = (_run(x, f"{__name__}.AddNoise", size=2.0) - x).flatten(1)
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
    with pytest.raises(DataError, match=f"{name.split('.')[-1]} cannot change {shape} .*{message}.*; mend") as error:
        _run(_images(), name, **args)
    assert "\n" not in str(error.value)


def test_colors_of_other_channels_are_refused_in_torchvisions_words() -> None:
    with pytest.raises(DataError, match=r"^ColorJitter cannot change .* permitted channel values are 1 or 3"):
        _run(_images(channels=4), "ColorJitter", brightness=0.5)


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
        ("RandomApply", {"transforms": [_config("Pad", padding=2), _config("CenterCrop", size=[40, 56])]}, None),
        ("RandomApply", {"transforms": [_config("RandomInvert", p=1.0)]}, F.invert),
    ],
)
def test_the_asked_share_is_changed_and_the_rest_is_kept(
    name: str, args: dict[str, Any], one: Callable[[Tensor], Tensor] | None, channels: int, dtype: torch.dtype
) -> None:
    x = _images(4, channels, dtype).repeat(100, 1, 1, 1)
    y = _run(x, name, **args, p=0.3)
    kept = (y == x).flatten(1).all(1)
    if one is None:
        assert kept.all()
        return
    changed = torch.tensor([_levels(a, one(b)) < 1e-3 for a, b in zip(y, x, strict=True)])
    assert (kept ^ changed).all()
    assert 75 < changed.sum() < 165  # 120, five standard deviations to each side


@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
def test_a_crop_is_torchvisions(kind: type[Tensor]) -> None:
    x = _images()
    top, left = torch.randint(0, 11, (8,)), torch.randint(0, 7, (8,))
    y = crop(x.as_subclass(kind), top, left, 30, 50)
    for image, i, j, made in zip(x, top.tolist(), left.tolist(), y, strict=True):
        assert made.equal(F.crop(image, i, j, 30, 50))


@pytest.mark.parametrize(
    "args",
    [
        {"size": 30},
        {"size": [40, 56]},
        {"size": [40, 40], "padding": 4},
        {"size": [44, 50], "padding": [3, 5], "fill": 7},
        {"size": [44, 50], "padding": [1, 2, 3, 4], "padding_mode": "reflect"},
        {"size": [44, 50], "padding": 3, "padding_mode": "symmetric"},
        {"size": [50, 70], "pad_if_needed": True, "fill": [1, 2, 3]},
        {"size": [50, 30], "padding": 1, "pad_if_needed": True, "padding_mode": "edge"},
    ],
)
def test_a_random_crop_is_any_window_of_the_padded_image(args: dict[str, Any]) -> None:
    image = _images(1)
    high, wide = v2.RandomCrop(**args).size
    padding = v2.RandomCrop(**args).make_params([image])["padding"]
    padded = v2.Pad(padding, args.get("fill", 0), args.get("padding_mode", "constant"))(image)
    windows = padded.unfold(2, high, 1).unfold(3, wide, 1)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    y = _run(image.repeat(50, 1, 1, 1), "RandomCrop", **args)
    seen = {int((windows == made).flatten(1).all(1).nonzero()[0, 0]) for made in y}
    assert len(seen) > min(len(windows), 50) * 0.5
    if len(windows) <= 60:  # every place has its turn
        y = _run(image.repeat(600, 1, 1, 1), "RandomCrop", **args)
        assert len(y.unique(dim=0)) == len(windows.unique(dim=0))


@both
@channels_too
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [[24, 24], [60, 17], [40, 56]])
def test_a_resized_crop_is_torchvisions(size: list[int], antialias: bool, channels: int, dtype: torch.dtype) -> None:
    x = _images(40, channels, dtype)
    box = draw_resized_crop(v2.RandomResizedCrop(24, ratio=[0.3, 3.0]), x)
    y = resized_crop(x, box, size, antialias)
    for image, place, made in zip(x, box.tolist(), y, strict=True):
        assert _levels(made, F.resized_crop(image, *place, size=size, antialias=antialias)) <= 1


def test_a_resized_crop_of_floats_is_exact() -> None:
    x = torch.rand(20, 3, HIGH, WIDE)
    box = draw_resized_crop(v2.RandomResizedCrop(24), x)
    for antialias in (True, False):
        made = resized_crop(x, box, [24, 30], antialias)
        asked = [
            F.resized_crop(i, *p, size=[24, 30], antialias=antialias) for i, p in zip(x, box.tolist(), strict=True)
        ]
        torch.testing.assert_close(made, torch.stack(asked), rtol=0, atol=1e-5)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
def test_the_cpu_and_an_accelerator_give_the_same_resized_crop(interpolation: str, antialias: bool) -> None:
    x = _images(20)
    transforms = build([_config("RandomResizedCrop", size=24, interpolation=interpolation, antialias=antialias)], FLAG)
    torch.manual_seed(1)
    here = transform_batch(transforms, x)
    torch.manual_seed(1)
    there = transform_batch(transforms, x.as_subclass(Elsewhere)) if interpolation == "bilinear" else here
    assert _levels(here, there.as_subclass(Tensor)) <= 1
    torch.manual_seed(1)
    boxes = draw_resized_crop(transforms[0], x).tolist()
    options = {"size": [24, 24], "interpolation": v2.InterpolationMode(interpolation), "antialias": antialias}
    assert here.equal(torch.stack([F.resized_crop(i, *p, **options) for i, p in zip(x, boxes, strict=True)]))


@pytest.mark.parametrize(
    ("shape", "args"),
    [
        ((40, 56), {}),
        ((40, 56), {"scale": [0.3, 0.5], "ratio": [1.0, 1.0]}),
        ((100, 20), {"scale": [0.5, 1.0]}),  # mostly the way out: too narrow
        ((20, 100), {"scale": [0.9, 1.0]}),  # always: too wide
        ((30, 30), {"scale": [1.0, 1.0], "ratio": [0.5, 0.9]}),
        ((30, 30), {"scale": [1.5, 1.6], "ratio": [0.9, 1.1]}),  # always: the whole image
    ],
)
def test_boxes_of_a_resized_crop_are_distributed_as_torchvisions(shape: tuple[int, int], args: dict[str, Any]) -> None:
    transform = v2.RandomResizedCrop(24, **args)
    image = torch.zeros(3, *shape)
    theirs = [transform.make_params([image]) for _ in range(2000)]
    asked = torch.tensor([[p[k] for k in ("top", "left", "height", "width")] for p in theirs]).double()
    made = draw_resized_crop(transform, image.expand(2000, -1, -1, -1)).double()
    assert (made[:, :2] >= 0).all()
    assert (made[:, :2] + made[:, 2:] <= torch.tensor(shape)).all()
    for a, b in ((made, asked), (made[:, 2] * made[:, 3], asked[:, 2] * asked[:, 3]), (made.log1p(), asked.log1p())):
        error = (a.std(0) ** 2 / 2000 + b.std(0) ** 2 / 2000).sqrt()  # of a difference of two means
        assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * error + 1e-9).all()
        assert ((a.std(0) - b.std(0)).abs() <= 0.1 * b.std(0) + 1e-9).all()


@both
@channels_too
@pytest.mark.parametrize("fill", [0, None])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_rotation_is_torchvisions(mode: str, fill: int | None, channels: int, dtype: torch.dtype) -> None:
    x = _images(40, channels, dtype)
    angle = torch.rand(40) * 360 - 180
    y = rotate(x, angle, mode, faded=fill is not None)
    asked = [F.rotate(i, a, v2.InterpolationMode(mode), fill=fill) for i, a in zip(x, angle.tolist(), strict=True)]
    off = (y.double() - torch.stack(asked).double()).abs() > (1e-4 if dtype.is_floating_point else 1)
    assert off.double().mean() < 1e-3  # a pixel on a border between two may go to either


@pytest.mark.parametrize(
    "args",
    [
        {"degrees": [90, 90], "interpolation": "bilinear"},  # without resampling
        {"degrees": [20, 20], "expand": True},
        {"degrees": [20, 20], "fill": 9},
        {"degrees": [20, 20], "center": [3, 4]},
    ],
)
def test_other_rotations_are_torchvisions_own(args: dict[str, Any]) -> None:
    x = _images(dtype=torch.float32, high=WIDE)
    assert _run(x, "RandomRotation", **args).equal(torch.stack([v2.RandomRotation(**args)(image) for image in x]))


@pytest.mark.parametrize("args", [{"expand": True}, {"fill": [1, 2, 3]}, {"center": [3, 4]}])
def test_other_rotations_still_draw_for_every_sample(args: dict[str, Any]) -> None:
    x = _images(1, high=WIDE).repeat(8, 1, 1, 1)
    made = transform_batch(
        build([_config("RandomRotation", degrees=90, **args), _config("CenterCrop", size=40)], FLAG), x
    )
    assert len(made.unique(dim=0)) == 8


@both
@pytest.mark.parametrize("degrees", [10, [20, 40]])
def test_angles_are_drawn_between_the_limits(degrees: Any, dtype: torch.dtype) -> None:  # noqa: ANN401  # YAML's
    x = torch.zeros(200, 1, 41, 61, dtype=dtype)
    x[:, 0, 20, 31:] = 1 if dtype.is_floating_point else 255  # a hand to the right
    y = _run(x, "RandomRotation", degrees=degrees, interpolation="bilinear").double()[:, 0]
    down, right = torch.arange(41.0) - 20, torch.arange(61.0) - 30
    turned = torch.atan2(-(y * down[:, None]).sum((1, 2)), (y * right).sum((1, 2))) * 180 / math.pi
    low, high = v2.RandomRotation(degrees).degrees
    assert low - 1 < turned.min() < low + 3
    assert high - 3 < turned.max() < high + 1


ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}
RANGES = {"brightness": (0.0, 2.5), "contrast": (0.0, 2.5), "saturation": (0.0, 2.5), "hue": (-0.5, 0.5)}


@both
@channels_too
@pytest.mark.parametrize("name", ADJUST)
def test_colors_are_torchvisions(name: str, channels: int, dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (30, channels, 20, 31), dtype=torch.uint8)
    x[:, :, :4] = x[:, :1, :4]  # gray: a hue of its own
    x[:, :, 4:6] = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(31).view(2, 31)
    x = x if dtype == torch.uint8 else x / 255
    low, high = RANGES[name]
    factor = torch.rand(30) * (high - low) + low
    factor[:3] = torch.tensor([low, high, 0.0 if name == "hue" else 1.0])
    y = jitter(x, {name: factor}, torch.zeros(30, 1, dtype=torch.long))
    asked = torch.stack([ADJUST[name](i, f) for i, f in zip(x, factor.tolist(), strict=True)])
    assert _levels(y, asked) <= (1 if dtype == torch.uint8 else 0.02)
    assert _levels(y[2], x[2]) <= 0.01  # the factor that changes nothing


@both
def test_every_image_has_its_own_order_of_colors(dtype: torch.dtype) -> None:
    x = _images(50, dtype=dtype)
    factors = {name: torch.rand(50) * (high - low) + low for name, (low, high) in RANGES.items()}
    order = torch.rand(50, 4).argsort(1)
    y = jitter(x, factors, order)
    for number, (image, made) in enumerate(zip(x, y, strict=True)):
        for place in order[number].tolist():
            name = list(ADJUST)[place]
            image = ADJUST[name](image, factors[name][number].item())
        # A level lost in one step may grow in the next: by 2.5 in each of three, and hue swings where all are close.
        assert (made.double() - image.double()).abs().mean() * (255 if dtype.is_floating_point else 1) < 0.3


def test_an_order_of_colors_and_factors_are_drawn_for_every_sample() -> None:
    x = _images(1).repeat(200, 1, 1, 1)
    y = _run(x, "ColorJitter", brightness=[2.0, 2.0], contrast=[0.3, 0.3])
    orders = y.unique(dim=0)
    assert len(orders) == 2  # two orders of two fixed changes
    share = (y == orders[0]).flatten(1).all(1).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.16)  # four and a half standard deviations
    gray = torch.full((2000, 1, 2, 2), 100, dtype=torch.uint8)
    light = _run(gray, "ColorJitter", brightness=0.4)[:, 0, 0, 0].double()
    assert 60 <= light.min() < 61
    assert 138 < light.max() <= 140
    assert light.mean().item() == pytest.approx(99.5, abs=80 / math.sqrt(12 * 2000) * 4.5)
    assert _run(x, "ColorJitter").equal(x)


@both
@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
def test_erasing_is_torchvisions(kind: type[Tensor], dtype: torch.dtype) -> None:
    x = _images(dtype=dtype)
    box = torch.tensor([[n, 2 * n, 3 * n, 4 * n + 1] for n in range(8)])
    for value in (torch.tensor([0.0])[:, None, None], torch.rand(3, 1, 1), torch.rand(8, 3, HIGH, WIDE)):
        y = erase(x.as_subclass(kind), box, value)
        for n, (i, j, h, w) in enumerate(box.tolist()):
            new = value[n, :, i : i + h, j : j + w] if value.ndim == 4 else value
            assert y[n].equal(F.erase(x[n], i, j, h, w, new))


@pytest.mark.parametrize(
    "args", [{}, {"p": 1.0, "scale": [0.4, 0.6], "ratio": [0.2, 5.0]}, {"p": 1.0, "scale": [0.9, 1.0]}]
)
def test_erased_boxes_are_distributed_as_torchvisions(args: dict[str, Any]) -> None:
    x = torch.full((2000, 1, 30, 42), 7, dtype=torch.uint8)
    made = (_run(x, "RandomErasing", **args) == 0)[:, 0]
    theirs = v2.RandomErasing(**args)
    asked = torch.stack([theirs(image) for image in x])[:, 0] == 0
    tall, wide = made.any(2).sum(1), made.any(1).sum(1)
    assert (tall * wide).equal(made.sum((1, 2)))
    measures: list[Callable[[Tensor], Tensor]] = [
        lambda e: e.any(2).sum(1),
        lambda e: e.any(1).sum(1),
        lambda e: e.sum((1, 2)),
        lambda e: e.any(2).int().argmax(1),
        lambda e: e.any(1).int().argmax(1),
        lambda e: e.any(2).any(1),
    ]
    for measure in measures:
        a, b = measure(made).double(), measure(asked).double()
        error = ((a.var() + b.var()) / 2000).sqrt()
        assert (a.mean() - b.mean()).abs() <= 4.5 * error + 1e-9


def test_erasing_writes_the_value_of_each_channel_or_noise() -> None:
    x = _images(60, dtype=torch.float32)
    y = _run(x, "RandomErasing", p=1.0, value=[2.0, 3.0, 4.0])
    assert ((y == x) | (y == torch.tensor([2.0, 3.0, 4.0])[:, None, None])).all()
    assert not y.equal(x)
    noise = _run(x, "RandomErasing", p=1.0, value="random")
    new = noise[noise != x]
    assert new.mean().item() == pytest.approx(0, abs=0.05)
    assert new.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("high", [600, 20])
def test_a_batch_is_worked_on_in_parts_without_a_trace(high: int) -> None:
    x = _images(12, high=high)
    steps = [_config("RandomHorizontalFlip", p=1.0), _config("RandomErasing", p=0.0), _config("RandomGrayscale", p=1.0)]
    y = transform_batch(build(steps, FLAG), x)
    assert y.equal(F.rgb_to_grayscale(F.horizontal_flip(x), 3))


def test_half_and_double_precision_stay() -> None:
    steps = [
        _config("RandomResizedCrop", size=[24, 30]),
        _config("RandomRotation", degrees=20, interpolation="bilinear"),
        _config("ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2),
        "RandomErasing",
    ]
    for dtype in (torch.float16, torch.float64):
        y = transform_batch(build(steps, FLAG), _images(dtype=dtype))
        assert (y.dtype, y.shape) == (dtype, (8, 3, 24, 30))
        assert y.min() >= 0
        assert y.max() <= 1
