"""Networks of torchvision with a new head, and their pretrained weights: where they are, and what is in them.

`backbone` and `weights` are the options of `LitTransfer`, and messages name them.
"""

import difflib
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from lit_models.errors import ModelError, check_dropout

FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
TIMEOUT = 5.0  # seconds to wait for a server, before a network is trained from scratch
MAX_NAMED = 3  # tensors in a message


def make_backbone(name: str, input_shape: Sequence[int]) -> tuple[nn.Module, int]:
    """Return a network of torchvision without its last layer, from images `(B, 3, H, W)` to features `(B, F)`, and F.

    Its weights are random, and `input_shape` is channels, height and width of an image.

    Raises:
        ModelError: If there is no such network, or it cannot take such images.
    """
    check_name(name)
    channels, *size = input_shape
    if channels not in (1, 3) or len(size) != 2:
        raise ModelError(f"{name} takes images of 3 channels, or of 1", "", "input_shape", list(input_shape))
    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options["image_size"] = size[0]
    elif name.startswith("maxvit"):
        options["input_size"] = tuple(size)
    elif name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalization, which the networks apply themselves.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    try:
        net: nn.Module = models.get_model(name, weights=None, **options)
        if name.startswith("squeezenet"):  # its last layer is a convolution
            net.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = 512
        else:
            path, last = [(path, layer) for path, layer in net.named_modules() if isinstance(layer, nn.Linear)][-1]
            net.set_submodule(path, nn.Identity())
            features = last.in_features
        # Check the image size on the meta device, without computing anything.
        tensors = {key: value.to("meta") for key, value in (*net.named_parameters(), *net.named_buffers())}
        functional_call(net.eval(), tensors, torch.zeros(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        problem = f"{name} cannot take images of {'x'.join(map(str, size))} pixels ({' '.join(str(error).split())})"
        remedy = "give images of 224x224 pixels, or another `backbone`"
        raise ModelError(problem, remedy, "input_shape", list(input_shape)) from error
    return net.train(), features


def check_name(name: str) -> None:
    """Raise a ModelError unless torchvision has a classification network of this name."""
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known)
        hint = "give resnet18, vgg16, efficientnet_b0, vit_b_16, ..."
        hint = f"did you mean {' or '.join(close)}?" if close else hint
        raise ModelError("torchvision has no such network to classify images", hint, "backbone", name)


class TransferNet(nn.Module):
    """A classification network of torchvision whose last layer is replaced.

    Takes the arguments of `LitTransfer`, and `num_outputs`; invalid ones raise a ModelError.
    """

    def __init__(self, backbone: str, input_shape: Sequence[int], num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        self.backbone, features = make_backbone(backbone, input_shape)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_outputs))
        self.is_frozen = False
        self.to(memory_format=torch.channels_last)  # the fastest layout for convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from normalized images, `(B, C, H, W)`."""
        outputs: Tensor = self.head(self.features(x))
        return outputs

    def features(self, x: Tensor) -> Tensor:
        """Compute the inputs of the head, `(B, F)`, from normalized images, `(B, C, H, W)`."""
        features: Tensor = self.backbone(x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        return features

    def freeze(self, is_frozen: bool) -> None:
        """Freeze the backbone, with its batch norms and dropouts in evaluation mode, or unfreeze it."""
        self.is_frozen = is_frozen
        self.backbone.requires_grad_(not is_frozen)
        self.backbone.train(self.training and not is_frozen)

    def train(self, mode: bool = True) -> "TransferNet":
        """Set the training mode of all but a frozen backbone."""
        super().train(mode)
        self.backbone.train(mode and not self.is_frozen)
        return self


class Weights(NamedTuple):
    """The tensors of a backbone by name, and mean and standard deviation of its images' channels.

    Both have the shape `(3, 1, 1)` or `(1, 1, 1)`, in units of [0, 1].
    """

    state: dict[str, Tensor]
    mean: Tensor
    std: Tensor


def read_weights(backbone: str, weights: str) -> Weights:
    """Read weights from a file, or from torchvision, which downloads them once.

    Raises:
        ModelError: If they cannot be read or downloaded; the message says where to put the file.
    """
    prepared = torchvision_weights(backbone, weights).transforms()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prepared.mean, prepared.std))
    content = _read(weights, locate_weights(backbone, weights))
    for wrapper in ("state_dict", "model"):  # of Lightning and of torchvision's own scripts
        inner = content.get(wrapper)
        content = inner if isinstance(inner, dict) else content
    content = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    own = next((name for name in ("normalization", "standardize") if f"{name}.mean" in content), None)
    if own is not None:  # a checkpoint of a LitModule; older ones have `standardize`
        mean, std = content[f"{own}.mean"], content[f"{own}.std"]
        content = {name: value for name, value in content.items() if name.startswith("net.backbone.")}
        if not content:
            raise ModelError("a checkpoint of another model", "give one of LitTransfer", "weights", weights)
    # Prefixes of DataParallel, torch.compile and LitTransfer.
    prefixes = ("module.", "_orig_mod.", "net.backbone.")
    while prefix := next((p for p in prefixes if content and all(name.startswith(p) for name in content)), ""):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    # Old files of DenseNets have dots in these names.
    dot = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
    state = OrderedDict((dot.sub(r"\1", name), value) for name, value in content.items())
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]  # MNASNet needs it
    return Weights(state, mean, std)


def trained_size(weights: str) -> int:
    """Return the height and width, in pixels, of a checkpoint's images; raise a ModelError if its model has none."""
    shape = _read(weights, Path(weights).expanduser()).get("hyper_parameters", {}).get("input_shape", ())
    if len(shape) != 3:
        raise ModelError("a checkpoint of another model", "give one of LitTransfer", "weights", weights)
    return int(shape[-1])


def _read(weights: str, path: Path) -> dict[str, Any]:
    """Return all that is in a file; `weights`, as it was given, is for messages."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content)
    except Exception as error:  # unpickling a file of another kind may raise anything
        reason = str(error).partition("\n")[0]
        if isinstance(error, UnpicklingError):  # torch's own message is long
            reason = "it is damaged, or not of tensors alone, as torch.save(net.state_dict(), FILE) makes it"
        raise ModelError(f"no weights can be read from {path} ({reason})", "", "weights", weights) from error


def is_file(weights: str) -> bool:
    """Return whether weights are given by a file."""
    return weights.endswith(FILES)


def torchvision_weights(backbone: str, weights: str) -> Any:  # noqa: ANN401  # a member of torchvision's WeightsEnum
    """Return torchvision's weights of a name; for a file the default ones, whose preprocessing is assumed."""
    check_name(backbone)
    known = models.get_model_weights(backbone)
    name = "DEFAULT" if is_file(weights) else weights.rpartition(".")[2]
    if name not in known.__members__:
        remedy = f"give one of them, none, or a file that ends in {', '.join(FILES)}"
        raise ModelError(f"{backbone} has {', '.join(known.__members__)}", remedy, "weights", weights)
    return known[name]


def locate_weights(backbone: str, weights: str) -> Path:
    """Return the file of weights, torchvision's downloaded if need be; raise a ModelError if there is none."""
    if is_file(weights):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ModelError("there is no such file", "", "weights", weights)
        return path
    url = str(torchvision_weights(backbone, weights).url)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if not file.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Its name has the first digits of its hash: resnet18-f37072fd.pth.
            torch.hub.download_url_to_file(url, str(file), file.stem.rpartition("-")[2], progress=sys.stderr.isatty())
        except (URLError, HTTPException, OSError, RuntimeError) as error:
            remedy = f"put that file into {folder}, or give a file's path, or none"
            raise ModelError(f"{url} cannot be downloaded ({error})", remedy, "weights", weights) from error
    return file


def why_unavailable(backbone: str, seconds: float = TIMEOUT) -> str:
    """Return why the default weights of a network can neither be found nor downloaded; nothing if they can.

    Args:
        backbone: The network.
        seconds: How long to wait for an answer of the server, at most.

    Raises:
        ModelError: If there is no such network.
    """
    url = str(torchvision_weights(backbone, "DEFAULT").url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return ""
    answers: list[str] = []

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=seconds):
                answers.append("")
        except (HTTPException, OSError, ValueError) as error:
            answers.append(str(getattr(error, "reason", error)))

    # Looking up the name of the server knows no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    reason = answers[0] if answers else f"no answer in {seconds:g} s"
    return f"{file.name} is not in {file.parent}, and cannot be downloaded: {reason}" if reason else ""


def load_backbone(net: nn.Module, backbone: str, weights: str) -> Weights:
    """Load weights into a network of `make_backbone`, all of whose tensors they must have, and return them.

    Raises:
        ModelError: If they cannot be read, are not this network's, or are not finite.
    """
    loaded = read_weights(backbone, weights)
    try:  # the network's own method renames the tensors of older files
        unfit = net.load_state_dict(loaded.state, strict=False).missing_keys
    except RuntimeError as error:
        unfit = re.findall(r"size mismatch for ([\w.]+)", str(error))
        if not unfit:
            raise
    own = net.state_dict()
    if unfit:
        named = ", ".join(unfit[:MAX_NAMED]) + (", ..." if len(unfit) > MAX_NAMED else "")
        problem = f"{len(unfit)} of its {len(own)} tensors are missing, or have another shape ({named})"
        raise ModelError(f"these are not the weights of {backbone}: {problem}", "", "weights", weights)
    broken = [key for key, value in own.items() if not value.isfinite().all()]
    if broken:
        raise ModelError(f"{broken[0]} holds NaN or infinity", "give others", "weights", weights)
    return loaded
