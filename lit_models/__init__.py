"""What learns: LightningModules, each a plain network with its options."""

from lit_models.base import LitModule
from lit_models.conv import ConvNet, LeNet, LitConvNet, LitLeNet
from lit_models.linear import LitLinearRegression, LitLogisticRegression
from lit_models.mlp import MLP, LitMLP
from lit_models.tabm import LitTabM, TabMNet
from lit_models.tasks import ModelError
from lit_models.transfer import LitTransfer, TransferNet

__all__ = [
    "MLP",
    "ConvNet",
    "LeNet",
    "LitConvNet",
    "LitLeNet",
    "LitLinearRegression",
    "LitLogisticRegression",
    "LitMLP",
    "LitModule",
    "LitTabM",
    "LitTransfer",
    "ModelError",
    "TabMNet",
    "TransferNet",
]
