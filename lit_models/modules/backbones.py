"""Networks of torchvision without their last layer, and what they have learned."""

import difflib
import re
import sys
from collections import OrderedDict
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from lit_models.errors import ModelError

FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")


def make_backbone(name: str, input_shape: Sequence[int]) -> tuple[nn.Module, int]:
    """Build a network of torchvision without its last layer.

    Args:
        name: Its name.
        input_shape: Channels, height and width of an image.

    Returns:
        The network, with random weights, from images `(B, 3, H, W)` to features `(B, F)`; and F.

    Raises:
        ModelError: If there is no such network, or it cannot take such images.
    """
    _check_name(name)
    channels, *size = input_shape
    if channels not in (1, 3) or len(size) != 2:
        raise ModelError(f"--model.input_shape {list(input_shape)}: {name} takes images of 3 channels, or of 1.")
    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options["image_size"] = size[0]
    elif name.startswith("maxvit"):
        options["input_size"] = tuple(size)
    elif name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalization, to which they turn images themselves.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    try:
        net: nn.Module = models.get_model(name, weights=None, **options)
        if name.startswith("squeezenet"):  # whose last layer is a convolution
            net.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = 512
        else:
            path, last = [(path, layer) for path, layer in net.named_modules() if isinstance(layer, nn.Linear)][-1]
            net.set_submodule(path, nn.Identity())
            features = last.in_features
        # A look at what it can take, without its numbers.
        sketch = {key: value.to("meta") for key, value in (*net.named_parameters(), *net.named_buffers())}
        functional_call(net.eval(), sketch, torch.zeros(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        given = "x".join(map(str, size))
        reason = " ".join(str(error).split())
        raise ModelError(
            f"--model.input_shape: {name} cannot take images of {given} pixels ({reason}); give --data.image_size "
            "224, or another --model.backbone."
        ) from error
    return net.train(), features


def _check_name(name: str) -> None:
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else "give resnet18, vgg16, efficientnet_b0, vit_b_16, ..."
        )
        raise ModelError(f"--model.backbone {name}: torchvision has no such network to classify images; {hint}")


class Weights(NamedTuple):
    """What a backbone has learned, and how its images were prepared.

    Args:
        state: Its tensors, by name.
        mean: Of each channel, `(3, 1, 1)` or `(1, 1, 1)`, in units of [0, 1].
        std: Standard deviation, likewise.
    """

    state: dict[str, Tensor]
    mean: Tensor
    std: Tensor


def read_weights(backbone: str, weights: str) -> Weights:
    """Read weights from a file, or from torchvision, which downloads them once.

    Args:
        backbone: Name of the network.
        weights: `DEFAULT` or another name of torchvision's; a `.pth` or safetensors file; or a checkpoint of a
            `LitTransfer` with this backbone.

    Raises:
        ModelError: If they cannot be read or downloaded; the message says where to put the file.
    """
    prepared = published(backbone, weights).transforms()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prepared.mean, prepared.std))
    content = _read(weights, locate(backbone, weights))
    for wrapper in ("state_dict", "model"):  # as Lightning and torchvision's own scripts have them
        inner = content.get(wrapper)
        content = inner if isinstance(inner, dict) else content
    content = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    own = next((name for name in ("normalization", "standardize") if f"{name}.mean" in content), None)
    if own is not None:  # a checkpoint of a LitModule; older ones have the second name
        mean, std = content[f"{own}.mean"], content[f"{own}.std"]
        content = {name: value for name, value in content.items() if name.startswith("net.backbone.")}
        if not content:
            raise ModelError(f"--model.weights {weights}: a checkpoint of another model; give one of LitTransfer.")
    # What wrappers (DataParallel, torch.compile) and LitTransfer put before the names.
    prefixes = ("module.", "_orig_mod.", "net.backbone.")
    while prefix := next((p for p in prefixes if content and all(name.startswith(p) for name in content)), ""):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    # Old files of DenseNets have points in these names.
    point = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
    state = OrderedDict((point.sub(r"\1", name), value) for name, value in content.items())
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]  # an MNASNet insists on it
    return Weights(state, mean, std)


def trained_size(weights: str) -> int:
    """Read from a checkpoint which height and width of images, in pixels, its model was trained on.

    Raises:
        ModelError: If it is no checkpoint of a model for images.
    """
    shape = _read(weights, Path(weights).expanduser()).get("hyper_parameters", {}).get("input_shape", ())
    if len(shape) != 3:
        raise ModelError(f"--model.weights {weights}: a checkpoint of another model; give one of LitTransfer.")
    return int(shape[-1])


def _read(weights: str, path: Path) -> dict[str, Any]:
    """Read all that is in a file; the option by which it was given is for messages."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content)
    except Exception as error:  # whatever unpickling a file of another kind may raise
        reason = str(error).partition("\n")[0]
        if isinstance(error, UnpicklingError):  # of which torch has much to say
            reason = "it is damaged, or not of tensors alone, as torch.save(net.state_dict(), FILE) makes it"
        raise ModelError(f"--model.weights {weights}: no weights can be read from {path} ({reason}).") from error


def is_file(weights: str) -> bool:
    """Whether weights are named by a file."""
    return weights.endswith(FILES)


def published(backbone: str, weights: str) -> Any:  # noqa: ANN401  # a member of torchvision's WeightsEnum
    """Find torchvision's weights of a name; for a file, the default ones, whose preparation it is taken to share."""
    _check_name(backbone)
    known = models.get_model_weights(backbone)
    name = "DEFAULT" if is_file(weights) else weights.rpartition(".")[2]
    if name not in known.__members__:
        raise ModelError(
            f"--model.weights {weights}: {backbone} has {', '.join(known.__members__)}; give one of them, none, or "
            f"a file that ends in {', '.join(FILES)}."
        )
    return known[name]


def locate(backbone: str, weights: str) -> Path:
    """Give the file that holds some weights; those of torchvision are downloaded if they are not there yet.

    Raises:
        ModelError: If there is no such file, and it cannot be downloaded.
    """
    if is_file(weights):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ModelError(f"--model.weights {weights}: there is no such file.")
        return path
    url = str(published(backbone, weights).url)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if not file.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The name has the first digits of the content's hash: resnet18-f37072fd.pth.
            torch.hub.download_url_to_file(url, str(file), file.stem.rpartition("-")[2], progress=sys.stderr.isatty())
        except (URLError, HTTPException, OSError, RuntimeError) as error:
            raise ModelError(
                f"--model.weights {weights}: {url} cannot be downloaded ({error}); put that file into {folder}, or "
                "give a file's path, or none."
            ) from error
    return file
