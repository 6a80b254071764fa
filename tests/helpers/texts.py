"""Small texts: with labels, and as a corpus."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules import TextCorpusDataModule, TextCSVDataModule
from datamodules.base import Stage
from datamodules.text.tokenizer import PAD
from datamodules.text.windows import IGNORED

Row = tuple[str, str]
Make = Callable[..., TextCSVDataModule]

WORDS = ("the king", "a horse,", "my kingdom", "is", "not\n  for", "sale!\n", "äöü", "42", "<unk>")
CORPUS = " ".join(WORDS[number * number % 7 % len(WORDS)] for number in range(1200)) + "".join(WORDS)


def rows(size: int = 90) -> list[Row]:
    """Make labels and texts of 3 to 14 words; the first word tells the class, the second the row."""
    return [
        ("good" if i % 3 else "bad", f"{'Love' if i % 3 else 'Hate'} row{i:03} {'so ' * (i % 12)}much")
        for i in range(size)
    ]


def lines(of: Iterable[Row]) -> str:
    """Write labels and texts in lines."""
    return "".join(f"{label}\t{text}\n" for label, text in of)


def texts(data: TextCSVDataModule, batches: Iterable[Any]) -> list[str]:
    """Decode the texts of batches."""
    x = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    return [data.tokenizer.decode(row[row != PAD].tolist()) for batch in x for row in batch]


def split(data: TextCSVDataModule, stage: Stage) -> list[str]:
    """Decode the texts of a split."""
    samples, indices = data.splits[stage]
    return texts(data, [samples[indices]])


def loaded(state: dict[str, Any], path: str, **options: Any) -> TextCSVDataModule:
    """Make the data of a file for a trained model."""
    data = TextCSVDataModule(path, **{"min_count": 1, **options})
    data.load_state_dict(state)
    return data


def corpus(path: str, **options: Any) -> TextCorpusDataModule:
    """Make the data of a plain text."""
    defaults: dict[str, Any] = {"context_length": 16, "batch_size": 4, "cache_dir": str(Path(path).parent / "cache")}
    return TextCorpusDataModule(path, **{**defaults, **options})


def corpus_state(path: str, **options: Any) -> dict[str, Any]:
    """Return what a checkpoint keeps of a plain text."""
    data = corpus(path, **options)
    data.setup("fit")
    return data.state_dict()


def loaded_corpus(path: str, state: dict[str, Any], **options: Any) -> TextCorpusDataModule:
    """Make the data of a plain text for a trained model."""
    data = corpus(path, **options)
    data.load_state_dict(state)
    return data


def predicted(data: TextCorpusDataModule, stage: Stage) -> list[int]:
    """Return the targets of validation or test."""
    (loader,) = data.val_dataloader() if stage == "val" else data.test_dataloader()
    return [token for _, y in loader for token in y[y != IGNORED].tolist()]


def decoded(data: TextCorpusDataModule, ids: list[int]) -> str:
    """Decode tokens."""
    text: str = data.decode(torch.tensor([ids]))["prediction"][0]
    return text
