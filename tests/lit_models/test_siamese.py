"""Embeddings that tell classes apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lit_models import LitSiamese, ModelError
from lit_models.siamese import PairTask
from tests.helpers.front_door import ROOT, Run
from tests.helpers.tiny import TinyTexts, labeled_embeddings
from tests.helpers.trainers import quiet_trainer


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_loss_is_torchs_over_all_pairs_with_the_kinds_balanced(margin: float) -> None:
    z, y = labeled_embeddings(12, 3)
    z = z.double().requires_grad_()
    first, second = torch.triu_indices(12, 12, 1)
    same = y[first] == y[second]
    criterion, expected = nn.CosineEmbeddingLoss(margin), torch.zeros((), dtype=torch.float64)
    for kind, sign in ((same, 1), (~same, -1)):
        expected = expected + criterion(z[first[kind]], z[second[kind]], torch.full((int(kind.sum()),), sign)) / 2
    loss = PairTask(6, margin).loss(z, y)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (loss, expected)))


@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2], [5]])
def test_a_batch_without_a_kind_of_pair_gives_numbers(y: list[int]) -> None:
    z = torch.randn(len(y), 4, requires_grad=True)
    loss = PairTask(4, 0.0).loss(z, torch.tensor(y))
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_large_batch_of_half_precision_has_the_same_loss(precision: torch.dtype) -> None:
    z, y = labeled_embeddings(1000, 2)
    z = z.to(precision)
    torch.testing.assert_close(PairTask(6, 0.3).loss(z, y), PairTask(6, 0.3).loss(z.float(), y))
    assert PairTask(6, 0.3).activate(torch.zeros(2, 6, dtype=precision)).isfinite().all()


def test_nearest_neighbors_of_digits_are_of_their_class(run: Run) -> None:
    line = "--model LitSiamese --model.encoder LitMLP --model.encoder_args.hidden [128] --model.lr 0.003"
    cli = run(f"{line} --max_epochs 10 --early_stopping.monitor val_recall1 --checkpoint.monitor val_recall1")
    assert cli.trainer.callback_metrics["test_recall1"] >= 0.95
    assert cli.trainer.callback_metrics["test_auroc"] >= 0.97
    assert getattr(cli.trainer.checkpoint_callback, "mode", "") == "max"


def test_a_row_of_predictions_is_an_embedding_of_length_1(run: Run) -> None:
    run("--model LitSiamese --model.encoder LitMLP --model.embedding_dim 3 --data ToyDataModule --max_epochs 1")
    run("predict --ckpt_path runs/LitSiamese-ToyDataModule/version_0/checkpoints/best.ckpt")
    header, *rows = Path("predictions.csv").read_text().splitlines()
    assert header == "e1,e2,e3"
    lengths = torch.tensor([[float(number) for number in row.split(",")] for row in rows]).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(len(rows)))


def test_texts_have_embeddings() -> None:
    data = TinyTexts()
    model = LitSiamese("LitTextClassifier", {"embedding_dim": 16}, vocab_size=30, max_length=12, num_outputs=3)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val_recall1"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regression", "num_outputs": 1}, "^task='regression': LitSiamese makes pairs by class"),
        ({"task": "next_token"}, "^task='next_token': LitSiamese makes pairs by class"),
        ({"embedding_dim": 1}, "^embedding_dim=1: give 2 or more"),
        ({"margin": 2}, "^margin=2: give a cosine"),
        ({"loss": "MSELoss"}, "^loss='MSELoss': the loss of LitSiamese is that of pairs"),
        ({"label_smoothing": 0.1}, "^label_smoothing=0.1: the loss of LitSiamese is that of pairs"),
        ({"encoder": "LitTabM"}, "^encoder='LitTabM': "),
    ],
)
def test_options_that_do_not_fit_pairs_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LitSiamese(**options)


@pytest.mark.slow
def test_nearest_neighbors_of_mnist_are_of_their_class(run: Run, data_dir: str) -> None:
    cli = run(f"--config {ROOT}/configs/mnist_siamese.yaml --data.data_dir {data_dir} --max_epochs 1")
    assert cli.trainer.callback_metrics["test_recall1"] >= 0.97
