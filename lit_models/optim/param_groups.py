"""Parameter groups: the learning rate factor, weight decay and optimizer of each weight."""

from collections.abc import Mapping
from typing import Any

from torch import nn

SPARSE, DENSE = "torch.optim.SparseAdam", "torch.optim.AdamW"


def depths(module: nn.Module) -> dict[str, int]:
    """Return the number of layers between each weight, by its name, and the output.

    A layer is a module with a weight of two dimensions or more; vectors belong to the layer of the matrix before them.
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
    module: nn.Module, lr_factors: Mapping[str, float], optimizer: Mapping[str, Any], layer_decay: float
) -> list[dict[str, Any]]:
    """Return a parameter group for each weight, as `make_optimizer` takes them.

    Vectors, which are biases and the weights of norms, do not decay, as in nanoGPT and timm. Embeddings with sparse
    gradients are trained by SparseAdam, and by Muon (Jordan et al. 2024) the matrices that are no embeddings. AdamW
    trains what the chosen optimizer cannot.

    Args:
        module: The module.
        lr_factors: Factors of the learning rate by prefix of weights' names; weights without are not trained.
        optimizer: `class_path` and `init_args` of the optimizer.
        layer_decay: The learning rate of each layer, as a share of that of the next layer towards the output (Clark et
            al. 2020).

    Returns:
        For each weight a group of its own: `params`, `param_names`, and, where they are not the default, `lr_factor`,
        `weight_decay`, `optimizer` and `adjust_lr_fn`.
    """
    name_of_class = optimizer["class_path"].rpartition(".")[2]
    embeddings = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    sparse = {part.weight: part.sparse for part in embeddings}
    layers_above = depths(module) if layer_decay != 1 else {}
    groups = []
    for prefix, lr_factor in lr_factors.items():
        for name, weight in module.named_parameters():
            if not name.startswith(prefix):
                continue
            group: dict[str, Any] = {"params": [weight], "param_names": [name]}
            factor = lr_factor * layer_decay ** layers_above.get(name, 0)
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
