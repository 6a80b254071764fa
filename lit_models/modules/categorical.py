"""Category codes as one-hot vectors and embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_models.errors import ModelError

MAX_ONE_HOT = 32  # codes; a category with more gets an embedding


def split_features(in_features: int, cat_cardinalities: Sequence[int]) -> int:
    """Return the number of numeric features, which precede the codes; raise a ModelError if there are too few."""
    if len(cat_cardinalities) > in_features or any(size < 1 for size in cat_cardinalities):
        problem = f"give the number of codes of each category, which are the last of the {in_features} numbers of a row"
        raise ModelError(problem, option="cat_cardinalities", value=list(cat_cardinalities))
    return in_features - len(cat_cardinalities)


class ExpandCategories(nn.Module):
    """Turns the codes at the end of a row into one-hot vectors, or into embeddings where there are many codes.

    Code 0, for values that are not in the training split, becomes a vector of zeros.

    Args:
        in_features: Number of features of a row, codes included.
        cat_cardinalities: Number of codes of each categorical column.
        max_one_hot: A category with more codes than this gets an embedding, of size `1.6 * codes**0.56` but at most 50,
            fastai's rule.
    """

    column: Tensor
    code: Tensor

    def __init__(self, in_features: int, cat_cardinalities: Sequence[int], max_one_hot: float = MAX_ONE_HOT) -> None:
        super().__init__()
        self.num_numbers = split_features(in_features, cat_cardinalities)
        sizes = list(cat_cardinalities)
        self.embedded = [at for at, size in enumerate(sizes) if size > max_one_hot]
        dims = [min(50, round(1.6 * sizes[at] ** 0.56)) for at in self.embedded]
        self.embeddings = nn.ModuleList(
            nn.Embedding(sizes[at], dim, padding_idx=0) for at, dim in zip(self.embedded, dims, strict=True)
        )
        # Each feature of the one-hot vectors is 1 where one column has one code.
        one_hot = [(at, code) for at, size in enumerate(sizes) if size <= max_one_hot for code in range(1, size)]
        pairs = torch.tensor(one_hot, dtype=torch.long).view(-1, 2)
        self.register_buffer("column", pairs[:, 0] + self.num_numbers, persistent=False)
        self.register_buffer("code", pairs[:, 1].float(), persistent=False)
        self.out_features = self.num_numbers + len(pairs) + sum(dims)

    def forward(self, x: Tensor) -> Tensor:
        """Expand rows, `(B, in_features)`, to `(B, out_features)`."""
        parts = [x[:, : self.num_numbers], (x[:, self.column] == self.code).to(x.dtype)]
        for at, embedding in zip(self.embedded, self.embeddings, strict=True):
            parts.append(embedding(x[:, self.num_numbers + at].long()))
        return torch.cat(parts, dim=1)
