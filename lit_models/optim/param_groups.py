"""How each weight learns: at which share of the learning rate, with or without decay, by which optimizer."""

from collections.abc import Mapping
from typing import Any

from torch import nn

SPARSE, DENSE = "torch.optim.SparseAdam", "torch.optim.AdamW"


def depths(module: nn.Module) -> dict[str, int]:
    """Tell for each weight, by its name, how many layers are between it and the output.

    A layer is a module with a weight of two dimensions or more; vectors belong to the layer whose matrix they follow.
    """
    layers: dict[str, int] = {}
    count, seen = 0, set()
    for prefix, part in module.named_modules():
        own = [(name, p) for name, p in part.named_parameters(prefix, recurse=False) if p not in seen]
        count += any(p.ndim > 1 for _, p in own)
        for name, p in own:
            seen.add(p)
            layers[name] = max(count, 1)
    return {name: max(count, 1) - layer for name, layer in layers.items()}


def param_groups(
    module: nn.Module, shares: Mapping[str, float], optimizer: Mapping[str, Any], layer_decay: float
) -> list[dict[str, Any]]:
    """Describe how each weight is trained, as `make_optimizer` takes it.

    Vectors, which are biases and the weights of norms, do not decay, as in nanoGPT and timm. Embeddings with sparse
    gradients are SparseAdam's. Muon (Jordan et al. 2024) takes the matrices that are no embeddings. What an optimizer
    cannot train is AdamW's.

    Args:
        module: What has the weights.
        shares: What is trained: the beginnings of weights' names, and at which share of the learning rate.
        optimizer: `class_path` and `init_args` of the optimizer.
        layer_decay: The rate of each layer, as a share of that of the next one towards the output (Clark et al. 2020).

    Returns:
        For each weight a group of its own: `params`, `param_names`, and what it has of `lr_factor`, `weight_decay`,
        `optimizer` and `adjust_lr_fn`.
    """
    name_of_class = optimizer["class_path"].rpartition(".")[2]
    embeddings = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    sparse = {part.weight: part.sparse for part in embeddings}
    between = depths(module) if layer_decay != 1 else {}
    groups = []
    for start, share in shares.items():
        for name, weight in module.named_parameters():
            if not name.startswith(start):
                continue
            group: dict[str, Any] = {"params": [weight], "param_names": [name]}
            factor = share * layer_decay ** between.get(name, 0)
            if factor != 1:
                group["lr_factor"] = factor
            if weight.ndim < 2:
                group["weight_decay"] = 0.0
            is_matrix = weight.ndim == 2 and weight not in sparse and "weight" in name.rpartition(".")[2]
            if sparse.get(weight):
                group["optimizer"] = SPARSE
            elif name_of_class == "SparseAdam" or (name_of_class == "Muon" and not is_matrix):
                group["optimizer"] = DENSE
            elif name_of_class == "Muon" and not optimizer["init_args"].get("adjust_lr_fn"):
                group["adjust_lr_fn"] = "match_rms_adamw"  # so that one learning rate suits both
            groups.append(group)
    return groups
