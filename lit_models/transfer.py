"""Transfer learning: a pretrained backbone of torchvision with a new head."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_non_negative
from lit_models.modules.backbones import (
    TransferNet,
    is_file,
    load_backbone,
    locate_weights,
    torchvision_weights,
    trained_size,
)


class LitTransfer(LitModule):
    """A pretrained backbone of torchvision with a new head.

    The weights are loaded when fitting starts, or by `load_weights`, and not by the constructor: a checkpoint needs no
    file of weights. The mean and standard deviation that normalized their images come with them, and the command line
    sets the image size of the data to theirs (`preprocessing`).

    While the backbone is frozen, its batch norms and dropouts are in evaluation mode. If it is never unfrozen, its
    features are computed once, when fitting starts, and an epoch trains only the head.

    Args:
        backbone: Any classification network of `torchvision.models`: resnet18, resnet50, vgg16, efficientnet_b0,
            vit_b_16, ...
        weights: `DEFAULT` or another name of torchvision's weights; a `.pth` or safetensors file; a checkpoint of a
            `LitTransfer` with this backbone; or `none`, to train all from scratch, at one learning rate.
        input_shape: Channels (3, or 1, which is repeated), height and width of an image.
        unfreeze_epoch: The epoch, counted from 0, in which the backbone is unfrozen; by default it never is.
        backbone_lr_factor: The backbone's learning rate, as a share of the head's.
        views: Number of augmented versions of each training image whose features are cached, and used in turn by the
            epochs; 0 computes features in every step.
        dropout: Share of the features that are dropped in training.
        kwargs: Options of `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the backbone cannot take such images.
    """

    has_weights: Tensor
    net: TransferNet

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | None = "DEFAULT",
        input_shape: Sequence[int] = (3, 224, 224),
        unfreeze_epoch: int | None = None,
        backbone_lr_factor: float = 0.1,
        views: int = 10,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_non_negative(unfreeze_epoch=unfreeze_epoch, backbone_lr_factor=backbone_lr_factor, views=views)
        self.net = TransferNet(backbone, input_shape, self.num_outputs, dropout)
        self.initialize()
        self.example_input_array = torch.zeros(2, *input_shape)
        self.weights = None if weights == "none" else weights
        self.views = views
        self.unfreeze_epoch = unfreeze_epoch if self.weights else 0
        self.backbone_lr_factor = backbone_lr_factor if self.weights else 1.0
        # Whether the weights have been loaded, which happens once.
        self.register_buffer("has_weights", torch.tensor(False))
        self.net.freeze(self.unfreeze_epoch != 0)

    @classmethod
    def preprocessing(cls, backbone: str = "resnet18", weights: str | None = "DEFAULT", **_: Any) -> dict[str, Any]:
        """Return how the images of the weights were prepared, as options of an image data module.

        They are `image_size` and `resize_size`, in pixels, and `interpolation`; of a checkpoint `image_size` alone, and
        none without weights. Weights that do not exist raise a ModelError.
        """
        if weights is None or weights == "none":
            return {}
        prepared = torchvision_weights(backbone, weights).transforms()
        if is_file(weights):
            locate_weights(backbone, weights)
        if weights.endswith(".ckpt"):
            return {"image_size": trained_size(weights)}
        return {
            "image_size": prepared.crop_size[0],
            "resize_size": prepared.resize_size[0],
            "interpolation": prepared.interpolation.value,
        }

    def load_weights(self, keep_statistics: bool = False) -> None:
        """Load the weights into the backbone, and, unless kept, the mean and standard deviation of their images.

        Raises:
            ModelError: If there are none, or they are not this network's.
        """
        if self.weights is None:
            raise ModelError("there is nothing to load", option="weights", value="none")
        loaded = load_backbone(self.net.backbone, self.hparams["backbone"], self.weights)
        if self.hparams["normalize"] and not keep_statistics:
            self.normalization.is_set.fill_(False)  # replace those of the data
            self.normalization.set(loaded.mean, loaded.std)
        self.has_weights.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from raw images, `(B, C, H, W)`, or their features, `(B, F)`."""
        return self.task.rescale(self.net.head(x)) if x.ndim == 2 else super().forward(x)

    @torch.no_grad()
    def extract(self, x: Tensor) -> Tensor:
        """Compute features, the inputs of the head, `(B, F)`, from raw images, `(B, C, H, W)`."""
        return self.net.features(self.normalize(x))

    def prepare_weights(self) -> None:
        """Download the weights before the data are read; raise a ModelError if that fails, or their file is missing."""
        if self.weights:
            locate_weights(self.hparams["backbone"], self.weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise a ModelError if `weights` are not those that the run started from, and would replace trained ones."""
        saved = checkpoint["hyper_parameters"]["weights"]
        if self.weights not in (None, saved):
            problem = f"the run of this checkpoint began with {saved}, and has trained since"
            raise ModelError(problem, "leave it out, or train anew without `ckpt_path`", "weights", self.weights)
        super().on_load_checkpoint(checkpoint)

    def setup(self, stage: str) -> None:
        """Raise a ModelError if the backbone is to be unfrozen later on several devices."""
        if stage == "fit" and self.unfreeze_epoch and self.trainer.world_size > 1:
            problem, remedy = "several devices cannot unfreeze it later", "give `devices=1`, or `unfreeze_epoch=0`"
            raise ModelError(problem, remedy, "unfreeze_epoch", self.unfreeze_epoch)
        super().setup(stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Load the weights, compute the features of a frozen backbone, then make optimizer and scheduler.

        Lightning has no later hook for it: schedules take their length from the training loader, which is then fixed.
        """
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        if self.weights and not self.has_weights:
            # Statistics that the user gave to the data module win over those of the weights.
            self.load_weights(keep_statistics=getattr(data, "normalize", None) is not None)
        precompute = getattr(data, "precompute", None)
        # 1.0 is all, 1 is one batch; without a validation split, `setup` of the data has set a limit of 0.
        limits = trainer.limit_train_batches, trainer.limit_val_batches
        whole = all(not limit or (isinstance(limit, float) and limit == 1) for limit in limits)
        if self.unfreeze_epoch is None and self.views and whole and precompute is not None:
            self.net.eval()
            with trainer.precision_plugin.forward_context():
                epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else self.views
                precompute(self.extract, min(self.views, epochs), self.device)
            self.net.train()
        return super().configure_optimizers()

    def on_train_start(self) -> None:
        """Freeze or unfreeze the backbone of a run that is resumed within an epoch."""
        super().on_train_start()
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Freeze the backbone before epoch `unfreeze_epoch`, and unfreeze it from then on."""
        self.net.freeze(self.unfreeze_epoch is None or self.current_epoch < self.unfreeze_epoch)

    def lr_factors(self) -> dict[str, float]:
        """Return the factors of the head and, if it is ever unfrozen, of the backbone."""
        backbone = {} if self.unfreeze_epoch is None else {"net.backbone.": self.backbone_lr_factor}
        return {"net.head.": 1.0, **backbone}
