"""Transfer learning: a backbone of torchvision that has learned from many pictures, with a new head for one's own."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout
from lit_models.modules.backbones import is_file, locate, make_backbone, published, read_weights, trained_size

NAMED = 3  # tensors that a message names


class TransferNet(nn.Module):
    """A classification network of torchvision whose last layer is replaced.

    Args:
        backbone: Its name, as `torchvision.models.list_models` has it.
        input_shape: Channels (3, or 1, which are taken three times), height and width.
        num_outputs: Scores for each sample.
        dropout: Share of the features that are dropped in training.

    Raises:
        ModelError: If there is no such network, or it cannot take such images.
    """

    def __init__(self, backbone: str, input_shape: Sequence[int], num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        self.backbone, features = make_backbone(backbone, input_shape)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_outputs))
        self.is_frozen = False
        self.to(memory_format=torch.channels_last)  # the order that convolutions prefer

    def forward(self, x: Tensor) -> Tensor:
        """Compute scores, `(B, num_outputs)`, from normalized images, `(B, C, H, W)`."""
        scores: Tensor = self.head(self.features(x))
        return scores

    def features(self, x: Tensor) -> Tensor:
        """Compute what the head gets, `(B, F)`, from normalized images, `(B, C, H, W)`."""
        features: Tensor = self.backbone(x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        return features

    def freeze(self, is_frozen: bool) -> None:
        """Keep the backbone as it is, with its batch norms and dropouts in evaluation mode, or let it learn."""
        self.is_frozen = is_frozen
        self.backbone.requires_grad_(not is_frozen)
        self.backbone.train(self.training and not is_frozen)

    def train(self, mode: bool = True) -> "TransferNet":
        """Set the training mode, but not that of a frozen backbone."""
        super().train(mode)
        self.backbone.train(mode and not self.is_frozen)
        return self


class LitTransfer(LitModule):
    """A pretrained backbone of torchvision with a new head.

    The weights are loaded when fitting starts, or by `load_weights`, and not when a model is made: a checkpoint needs
    none. The mean and standard deviation by which their images were normalized come with them, and the command line
    has the data use their image size too (`preprocessing`).

    While the backbone is frozen its batch norms and dropouts are in evaluation mode. If it is never unfrozen, its
    features are computed once, when fitting starts, and an epoch trains the head alone.

    Args:
        backbone: Any classification network of `torchvision.models`: resnet18, resnet50, vgg16, efficientnet_b0,
            vit_b_16, ...
        weights: `DEFAULT` or another name of torchvision's weights; a `.pth` or safetensors file; a checkpoint of a
            `LitTransfer` with this backbone; or `none`. Without weights all is trained from the start, at one learning
            rate.
        input_shape: Channels, height and width of an image.
        unfreeze_epoch: The epoch, counted from 0, from which the backbone learns too; by default it never does.
        backbone_lr_factor: The backbone's learning rate, as a share of the head's.
        views: How many augmented versions of every training image are kept as features, which the epochs take in turn;
            0 computes them anew in every step.
        dropout: Share of the features that are dropped in training.
        kwargs: Options of `LitModule`.
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
        for name, value in {
            "unfreeze_epoch": unfreeze_epoch,
            "backbone_lr_factor": backbone_lr_factor,
            "views": views,
        }.items():
            if value is not None and value < 0:
                raise ModelError(f"--model.{name} {value}: give 0 or more.")
        self.net = TransferNet(backbone, input_shape, self.num_outputs, dropout)
        self.example_input_array = torch.zeros(2, *input_shape)
        self.weights = None if weights == "none" else weights
        self.views = views
        self.unfreeze_epoch = unfreeze_epoch if self.weights else 0
        self.backbone_lr_factor = backbone_lr_factor if self.weights else 1.0
        # Whether the backbone has learned something already: weights are loaded once.
        self.register_buffer("has_weights", torch.tensor(False))
        self.net.freeze(self.unfreeze_epoch != 0)

    @classmethod
    def preprocessing(cls, backbone: str = "resnet18", weights: str | None = "DEFAULT", **_: Any) -> dict[str, Any]:
        """How the images of the weights were prepared: the options of a data module that prepares others likewise.

        Args:
            backbone: As that of the model.
            weights: As that of the model.

        Returns:
            `image_size` and `resize_size`, in pixels, and `interpolation`; of a checkpoint `image_size` alone, and
            nothing without weights.

        Raises:
            ModelError: If there are no such weights.
        """
        if weights in (None, "none"):
            return {}
        assert weights is not None
        prepared = published(backbone, weights).transforms()
        if is_file(weights):
            locate(backbone, weights)
        if weights.endswith(".ckpt"):
            return {"image_size": trained_size(weights)}
        return {
            "image_size": prepared.crop_size[0],
            "resize_size": prepared.resize_size[0],
            "interpolation": prepared.interpolation.value,
        }

    def load_weights(self, keep_statistics: bool = False) -> None:
        """Load the weights into the backbone, and take over the mean and standard deviation of their images.

        Args:
            keep_statistics: Whether to leave mean and standard deviation as they are.

        Raises:
            ModelError: If there are none, or they are not this network's.
        """
        if self.weights is None:
            raise ModelError("--model.weights none: there is nothing to load.")
        name = self.hparams["backbone"]
        loaded = read_weights(name, self.weights)
        try:  # by the network's own way, which knows how older files call their tensors
            unfit = self.net.backbone.load_state_dict(loaded.state, strict=False).missing_keys
        except RuntimeError as error:
            unfit = re.findall(r"size mismatch for ([\w.]+)", str(error))
            if not unfit:
                raise
        own = self.net.backbone.state_dict()
        if unfit:
            raise ModelError(
                f"--model.weights {self.weights}: these are not the weights of {name}: {len(unfit)} of its "
                f"{len(own)} tensors are not there, or of another shape ({', '.join(unfit[:NAMED])}"
                f"{', ...' if len(unfit) > NAMED else ''})."
            )
        broken = [key for key, value in own.items() if not value.isfinite().all()]
        if broken:
            raise ModelError(f"--model.weights {self.weights}: {broken[0]} holds what is no number; take others.")
        if self.hparams["normalize"] and not keep_statistics:
            self.normalization.is_set.fill_(False)  # those of the data give way
            self.normalization.set(loaded.mean, loaded.std)
        self.has_weights.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute scores from raw images, or from their features.

        Args:
            x: Images, `(B, C, H, W)`, uint8, or floating-point from 0 to 1; or what `extract` made of them, `(B, F)`.

        Returns:
            Logits, or values in the target's own unit, `(B, num_outputs)`.
        """
        return self.task.rescale(self.net.head(x)) if x.ndim == 2 else super().forward(x)

    @torch.no_grad()
    def extract(self, x: Tensor) -> Tensor:
        """Compute what the head gets, `(B, F)`, from raw images, `(B, C, H, W)`."""
        return self.net.features(self.normalize(x))

    def prepare_weights(self) -> None:
        """Find the weights, or download them, before anybody spends time on data.

        Raises:
            ModelError: If that cannot be.
        """
        if self.weights:
            locate(self.hparams["backbone"], self.weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other weights than those that the run began with, which would replace what it has learned.

        Raises:
            ModelError: If there are others.
        """
        began = checkpoint["hyper_parameters"]["weights"]
        if self.weights not in (None, began):
            raise ModelError(
                f"--model.weights {self.weights}: the run of this checkpoint began with {began}, and has learned "
                "since; leave the flag out, or train anew without --ckpt_path."
            )
        super().on_load_checkpoint(checkpoint)

    def setup(self, stage: str) -> None:
        """Refuse what several devices would do each in its own way."""
        if stage == "fit" and self.unfreeze_epoch and self.trainer.world_size > 1:
            raise ModelError(
                f"--model.unfreeze_epoch {self.unfreeze_epoch}: several devices do not share what is unfrozen "
                "later; give --devices 1, or --model.unfreeze_epoch 0."
            )
        super().setup(stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and the scheduler, once the weights are there, and the features of what stays frozen.

        No hook of Lightning's comes later that is in time: the length of a schedule is taken from the training loader,
        which then stays as it is.
        """
        self._load_and_extract()
        return super().configure_optimizers()

    def _load_and_extract(self) -> None:
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        if self.weights and not self.has_weights:
            # Statistics that the user asked the data for go before those of the weights.
            self.load_weights(keep_statistics=getattr(data, "normalize", None) is not None)
        precompute = getattr(data, "precompute", None)
        # 1.0 is all, 1 is one batch; and where there is nothing to validate, `setup` of the data has set a limit of 0.
        limits = trainer.limit_train_batches, trainer.limit_val_batches
        whole = all(not limit or (isinstance(limit, float) and limit == 1) for limit in limits)
        if self.unfreeze_epoch is None and self.views and whole and precompute is not None:
            self.net.eval()
            with trainer.precision_plugin.forward_context():
                epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else self.views
                precompute(self.extract, min(self.views, epochs), self.device)
            self.net.train()

    def on_train_start(self) -> None:
        """Freeze or unfreeze where a run is resumed within an epoch, whose start is over."""
        super().on_train_start()
        self._freeze_or_unfreeze()

    def on_train_epoch_start(self) -> None:
        """Unfreeze the backbone when it is time."""
        self._freeze_or_unfreeze()

    def _freeze_or_unfreeze(self) -> None:
        self.net.freeze(self.unfreeze_epoch is None or self.current_epoch < self.unfreeze_epoch)

    def trained(self) -> dict[str, float]:
        """The head, and the backbone, if it is ever to learn, with a smaller learning rate."""
        backbone = {} if self.unfreeze_epoch is None else {"net.backbone.": self.backbone_lr_factor}
        return {"net.head.": 1.0, **backbone}
