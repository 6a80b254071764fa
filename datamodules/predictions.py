"""Predictions in Python, as a data frame."""

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from datamodules.base import DataModule


def predict(data: "DataModule", model: nn.Module) -> dict[str, list[Any]]:
    """Predict the inputs that `predict_dataloader` has, in evaluation mode, on the device of the model.

    Args:
        data: The data, which decode the predictions unless the model has a `decode` of its own.
        model: A model with a `predict_step`.

    Returns:
        Columns: the keys of the rows, if they have any, and what `decode` gives.
    """
    keys, decode = data.row_keys(), getattr(model, "decode", data.decode)
    device = next(model.parameters()).device
    columns: dict[str, list[Any]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for number, batch in enumerate(itertools.chain(*data.predict_dataloader())):
                x = batch if isinstance(batch, torch.Tensor) else batch[0]
                outputs = model.predict_step(x.to(device), number).cpu()  # type: ignore[operator]  # nn.Module has none
                outputs = outputs.float() if outputs.is_floating_point() else outputs  # NumPy has no bfloat16
                found = {name: list(itertools.islice(values, len(outputs))) for name, values in keys.items()}
                for name, values in {**found, **decode(outputs)}.items():
                    columns.setdefault(name, []).extend(values)
    finally:
        model.train(was_training)
    return columns


def as_frame(columns: dict[str, list[Any]], like: object = None) -> Any:  # noqa: ANN401  # of an optional library
    """Return columns as a data frame of the library of `like`, pandas with its index.

    Otherwise they are a DataFrame of pandas where that is installed, which most people have, and else as they are.
    """
    library = type(like).__module__.partition(".")[0]
    if library == "polars":
        import polars

        return polars.DataFrame(columns)
    try:
        import pandas
    except ImportError:
        return columns
    # pandas joins by the index, which filtered rows have kept.
    return pandas.DataFrame(columns, index=like.index if library == "pandas" else None)  # type: ignore[attr-defined]
