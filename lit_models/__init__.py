"""Models: LightningModules, each a plain network with its options."""

from lit_models.base import LitModule
from lit_models.conv import ConvNet, LeNet, LitConvNet, LitLeNet
from lit_models.distill import LitDistiller
from lit_models.ensemble import LitMLPEnsemble, MLPEnsemble
from lit_models.errors import ModelError
from lit_models.gpt import LitGPT
from lit_models.linear import LitLinearRegression, LitLogisticRegression
from lit_models.mlp import MLP, LitMLP
from lit_models.modules.backbones import TransferNet
from lit_models.modules.text_encoders import TextNet
from lit_models.modules.transformer import GPT
from lit_models.siamese import LitSiamese
from lit_models.tabm import LitTabM, TabMNet
from lit_models.text import LitTextClassifier
from lit_models.transfer import LitTransfer

__all__ = [
    "GPT",
    "MLP",
    "ConvNet",
    "LeNet",
    "LitConvNet",
    "LitDistiller",
    "LitGPT",
    "LitLeNet",
    "LitLinearRegression",
    "LitLogisticRegression",
    "LitMLP",
    "LitMLPEnsemble",
    "LitModule",
    "LitSiamese",
    "LitTabM",
    "LitTextClassifier",
    "LitTransfer",
    "MLPEnsemble",
    "ModelError",
    "TabMNet",
    "TextNet",
    "TransferNet",
]
