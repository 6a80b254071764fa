"""The classifier of texts and its encoders."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset

from lit_models import LitTextClassifier, ModelError
from lit_models.modules.text_encoders import EncoderName
from lit_models.optim.factory import CompositeOptimizer
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyTexts
from tests.helpers.trainers import quiet_trainer

ENCODERS = get_args(EncoderName)
VOCAB = 50
SMALL: dict[str, Any] = {"vocab_size": VOCAB, "embedding_dim": 16, "width": 12, "num_outputs": 3, "max_length": 64}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _small(encoder: EncoderName = "bag", **options: Any) -> LitTextClassifier:
    model = LitTextClassifier(encoder=encoder, **{**SMALL, **options})
    if encoder == "ngrams":  # as if it were trained, on data that know the subwords
        nn.init.normal_(model.net.embedding.weight[VOCAB:], std=0.1)
        model.load_statistics({"subwords": torch.randint(0, 99, (VOCAB, 5)) * (torch.arange(VOCAB) > 1)[:, None]})
    return model


def _texts(*lengths: int) -> list[Tensor]:
    return [torch.randint(1, VOCAB, (length,)) for length in lengths]


def _options(encoder: EncoderName) -> dict[str, Any]:
    return {"ngrams": {"pairs": 40, "subwords": 30}, "bag": {"pairs": 40}}.get(encoder, {})


# Padding


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_changes_nothing(encoder: EncoderName) -> None:
    model = _small(encoder, **_options(encoder)).eval()
    texts = _texts(1, 2, 3, 4, 9, 40)
    batch = pad_sequence(texts, batch_first=True)
    with torch.no_grad():
        alone = torch.cat([model(text[None]) for text in texts])
        torch.testing.assert_close(model(batch), alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(nn.functional.pad(batch, (0, 20))), alone, rtol=0, atol=1e-5)
    assert (alone[:-1] - alone[1:]).abs().amax(1).min() > 1e-3  # the texts themselves make a difference


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_teaches_nothing(encoder: EncoderName) -> None:
    gradients = []
    for extra in (0, 20):
        torch.manual_seed(0)
        model = _small(encoder, **_options(encoder), dropout=0.0)
        batch = pad_sequence(_texts(1, 5, 30), batch_first=True)
        model(nn.functional.pad(batch, (0, extra))).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        assert not model.net.embedding.weight.grad[0].any()  # type: ignore[index]  # there is a gradient
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_text_without_a_token_has_scores(encoder: EncoderName) -> None:
    model = _small(encoder, **_options(encoder))
    batch = pad_sequence([*_texts(7), torch.zeros(0, dtype=torch.long)], batch_first=True)
    for x in (batch, torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long)):
        model.zero_grad()
        scores = model(x)
        assert scores.shape == (2, 3)
        assert scores.isfinite().all()
        scores.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# What each encoder computes


def test_the_bag_is_the_mean_of_its_embeddings() -> None:
    model = _small().eval()
    table, head = model.net.embedding.weight, model.net.head
    ids = torch.tensor([[3, 3, 5, 0], [7, 1, 2, 4]])
    expected = torch.stack([(2 * table[3] + table[5]) / 3, table[[7, 1, 2, 4]].mean(0)])
    torch.testing.assert_close(model(ids), head(expected))
    assert model(torch.tensor([[1, 2, 3]])).allclose(model(torch.tensor([[3, 1, 2]])))


def test_the_bag_with_pairs_knows_an_order() -> None:
    model = _small(pairs=1000).eval()
    table, head = model.net.embedding.weight, model.net.head
    ids = torch.tensor([[3, 9, 5, 0, 0]])
    first, second, *padding = model.net.bigram_ids(ids)[0].tolist()
    assert padding == [0, 0]
    assert first != second
    assert VOCAB <= min(first, second) < max(first, second) < VOCAB + 1000
    torch.testing.assert_close(model(ids), head(table[[3, 9, 5, first, second]].mean(0, keepdim=True)))
    assert not model(ids).allclose(model(torch.tensor([[9, 5, 3]])))


@pytest.mark.parametrize("training", [True, False])
def test_ngrams_are_the_sum_of_three_means(training: bool) -> None:
    net = _small("ngrams", pairs=40, subwords=30, dropout=0.0).train(training).net
    table, subwords = net.embedding.weight, net.subwords
    ids = torch.tensor([[3, 9, 3, 0, 0], [7, 1, 2, 4, 8], [5, 0, 0, 0, 0]])
    expected = []
    for row in ids:
        tokens = row[row != 0]
        parts = tokens, net.bigram_ids(tokens[None])[0], subwords[tokens][subwords[tokens] != 0]
        assert VOCAB + 40 <= int(parts[2].min()) <= int(parts[2].max()) < VOCAB + 40 + 30
        means = [table[part].mean(0) if len(part) else torch.zeros(16) for part in parts]
        expected.append(torch.stack(means).sum(0))
    torch.testing.assert_close(net(ids), net.head(torch.stack(expected)))


def test_pairs_and_subwords_that_training_has_not_seen_say_nothing() -> None:
    model = LitTextClassifier(**SMALL).eval()
    ids = torch.tensor([[3, 9, 5]])
    alone = model(ids)
    model.load_statistics({"subwords": torch.randint(1, 99, (VOCAB, 5))})
    torch.testing.assert_close(model(ids), alone)
    assert alone.allclose(model(ids.flip(1)))


def test_subwords_are_set_once() -> None:
    model = _small("ngrams")
    before = model.net.subwords.clone()
    model.load_statistics({"subwords": torch.ones(VOCAB, 3)})
    assert model.net.subwords.equal(before)
    assert not model.net.subwords[:2].any()
    unused = LitTextClassifier(**SMALL, normalize=False)
    unused.load_statistics({"subwords": torch.ones(VOCAB, 3)})
    assert not unused.net.subwords.any()


def test_defaults_are_those_of_the_encoder() -> None:
    ngrams, bag, given = LitTextClassifier(), LitTextClassifier(encoder="bag"), LitTextClassifier(lr=0.0, pairs=0)
    assert (ngrams.net.embedding.embedding_dim, ngrams.hparams["lr"], ngrams.net.pairs) == (16, 0.003, 100_000)
    assert (bag.net.embedding.embedding_dim, bag.hparams["lr"], bag.net.pairs) == (128, 0.001, 0)
    assert (given.hparams["lr"], given.net.pairs) == (0.0, 0)


def test_a_checkpoint_from_before_the_ngrams_is_the_bag_that_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"vocab_size": 30, "encoder": "bag", "embedding_dim": 128, "num_outputs": 3, "pairs": 9}
    model, trainer = LitTextClassifier(**options, lr=0.01), quiet_trainer()
    trainer.fit(model, TinyTexts())
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    saved = torch.load(tmp_path / "new.ckpt", weights_only=True)
    del saved["hyper_parameters"]["subwords"]  # which it did not know
    assert saved["hyper_parameters"]["lr"] == 0.01
    names = ("net.embedding.weight", "net.head.1.bias", "net.head.1.weight")
    assert sorted(name for name in saved["state_dict"] if name.startswith("net.")) == sorted(names)
    torch.save(saved, tmp_path / "old.ckpt")
    old = LitTextClassifier.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True).eval()
    x = TinyTexts().splits["val"].samples.x
    torch.testing.assert_close(old(x), model.eval()(x), rtol=0, atol=0)


def test_pairs_spread_over_their_embeddings() -> None:
    net = _small(pairs=5000, vocab_size=20_000).net
    torch.manual_seed(1)
    pairs = (torch.rand(5000, 2).pow(3) * 19_999).long() + 1  # low ids are more frequent, as in a vocabulary
    pairs = pairs.unique(dim=0)
    used = net.bigram_ids(pairs).unique().numel()
    expected = 5000 * (1 - (1 - 1 / 5000) ** len(pairs))  # of a hash that is as good as random
    assert used > 0.95 * expected


@pytest.mark.parametrize("encoder", ["cnn", "gru", "lstm", "transformer"])
def test_others_know_an_order_too(encoder: EncoderName) -> None:
    model = _small(encoder).eval()
    assert not model(torch.tensor([[1, 2, 3, 4]])).allclose(model(torch.tensor([[4, 2, 1, 3]])), atol=1e-4)


# Training


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_every_encoder_learns_every_task(encoder: EncoderName, task: Any) -> None:  # noqa: ANN401  # a Literal
    x = torch.randint(1, VOCAB, (96, 8))
    x = x.where(torch.arange(8) < torch.randint(1, 9, (96, 1)), 0)
    y = x[:, 0] % 3
    if task != "multiclass":
        y = (x[:, 0] > 25).long() if task == "binary" else y.float()
    model = _small(encoder, task=task, num_outputs=3 if task == "multiclass" else 1, lr=0.01, dropout=0.1)
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)
    with torch.no_grad():
        before = model.task.loss(model.eval()(x), y)
    quiet_trainer(max_epochs=20).fit(model.train(), loader)
    with torch.no_grad():
        assert model.task.loss(model.eval()(x), y) < 0.7 * before
    predicted = model.eval().predict_step(x, 0)
    assert predicted.shape == ((96, 3) if task == "multiclass" else (96,))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_exports_with_any_number_of_texts(encoder: EncoderName) -> None:
    model = _small(encoder, **_options(encoder)).eval()
    batch = pad_sequence(_texts(3, 6), batch_first=True)
    # The graph of a recurrent network has one length; as padding changes nothing, that is no loss.
    sizes = {0: torch.export.Dim.DYNAMIC}
    if encoder not in ("gru", "lstm"):
        sizes[1] = torch.export.Dim.DYNAMIC
    exported = torch.export.export(model, (batch,), dynamic_shapes=(sizes,)).module()
    others = pad_sequence(_texts(1, 5, 6), batch_first=True)
    with torch.no_grad():
        torch.testing.assert_close(exported(others), model(others), rtol=0, atol=1e-5)
        if 1 in sizes:
            torch.testing.assert_close(exported(others[:, :4]), model(others[:, :4]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["cnn", "lstm", "transformer"])
def test_other_encoders_go_through_the_front_door(run: Run, encoder: EncoderName) -> None:
    cli = run(f"--model LitTextClassifier --model.encoder {encoder} --data tests.helpers.tiny.TinyTexts --max_epochs 1")
    folder = Path(cli.trainer.default_root_dir)
    loaded = LitTextClassifier.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert (loaded.hparams["encoder"], loaded.hparams["vocab_size"]) == (encoder, 30)
    assert list(folder.glob("events*"))


# Sparse gradients


@pytest.mark.parametrize("options", [{}, {"scheduler": "one-cycle"}, {"optimizer": "SGD"}], ids=str)
def test_sparse_training_is_that_of_two_optimizers(options: dict[str, Any]) -> None:
    data = TinyTexts(batch_size=54, val_fraction=0.0, test_fraction=0.1)  # one batch an epoch, in any order
    model = _small(vocab_size=30, pairs=20, sparse=True, dropout=0.0, lr=0.01, **options)
    other = _small(vocab_size=30, pairs=20, sparse=True, dropout=0.0)
    other.load_state_dict(model.state_dict())
    trainer = quiet_trainer(max_epochs=6)
    trainer.fit(model, data)
    assert isinstance(trainer.optimizers[0], CompositeOptimizer)

    name = options.get("optimizer", "AdamW")
    settings: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {"weight_decay": 0.0}
    rest = [*other.net.encoder.parameters(), *other.net.head.parameters()]
    apart = [
        getattr(torch.optim, name)(rest, lr=0.01, **settings),
        torch.optim.SparseAdam(other.net.embedding.parameters(), lr=0.01),
    ]
    schedules: list[Any] = []
    if "scheduler" in options:
        schedules = [torch.optim.lr_scheduler.OneCycleLR(o, 0.01, total_steps=6, cycle_momentum=False) for o in apart]
    samples, indices = data.splits["train"]
    x, y = samples[indices]
    for _ in range(6):
        other.zero_grad()
        other.task.loss(other(x), y).backward()
        for each in (*apart, *schedules):
            each.step()
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_batch_updates_only_its_own_embeddings() -> None:
    model = _small(sparse=True, lr=0.1)
    before = model.net.embedding.weight.detach().clone()
    x = torch.tensor([[3, 4, 0], [5, 3, 3]])
    quiet_trainer(max_epochs=3).fit(model, DataLoader(TensorDataset(x, torch.tensor([0, 1])), 2))
    changed = (model.net.embedding.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [3, 4, 5]
    assert model.net.embedding.weight.grad is None or model.net.embedding.weight.grad.is_sparse


def test_a_sparse_run_is_resumed_as_if_nothing_had_been(tmp_path: Path) -> None:
    data = {"batch_size": 16}
    whole = _small(vocab_size=30, sparse=True, dropout=0.0, lr=0.01)
    broken = _small(vocab_size=30, sparse=True, dropout=0.0, lr=0.01)
    broken.load_state_dict(whole.state_dict())
    quiet_trainer(max_epochs=4).fit(whole, TinyTexts(**data))
    first = quiet_trainer(max_epochs=2)
    first.fit(broken, TinyTexts(**data))
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed = _small(vocab_size=30, sparse=True, dropout=0.0, lr=0.01)
    path = str(tmp_path / "last.ckpt")
    quiet_trainer(max_epochs=4).fit(resumed, TinyTexts(**data), ckpt_path=path, weights_only=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_new_rate_reaches_both_optimizers_of_a_resumed_run(tmp_path: Path) -> None:
    model, trainer = _small(vocab_size=30, sparse=True), quiet_trainer()
    trainer.fit(model, TinyTexts())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again, trainer = _small(vocab_size=30, sparse=True, lr=0.5), quiet_trainer(max_epochs=2)
    trainer.fit(again, TinyTexts(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, CompositeOptimizer)
    assert [each.param_groups[0]["lr"] for each in optimizer.optimizers] == [0.5, 0.5]


def test_sparse_gradients_are_clipped_by_norm() -> None:
    heads = []
    for sparse, most in ((True, 0.01), (False, 0.01), (False, None)):
        torch.manual_seed(0)
        model = _small(vocab_size=30, sparse=sparse, dropout=0.0, optimizer="SGD", lr=0.1)
        data = TinyTexts(batch_size=64, val_fraction=0.0)  # one step, in which the embeddings' share of the norm tells
        quiet_trainer(gradient_clip_val=most).fit(model, data)
        heads.append(model.net.head.state_dict()["1.weight"])
    torch.testing.assert_close(heads[0], heads[1])
    assert not heads[0].allclose(heads[2])


def test_sparse_gradients_are_not_clipped_by_value() -> None:
    trainer = quiet_trainer(gradient_clip_val=0.1, gradient_clip_algorithm="value")
    with pytest.raises(ModelError, match=r"^gradient_clip_algorithm='value': .* give norm, or `sparse=False`"):
        trainer.fit(_small(vocab_size=30, sparse=True), TinyTexts())


def test_sparse_gradients_want_a_learning_rate() -> None:
    with pytest.raises(ModelError, match=r"^lr=0: SparseAdam needs more than 0"):
        quiet_trainer().fit(_small(vocab_size=30, sparse=True, lr=0.0), TinyTexts())


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "cnn", "sparse": True}, "^sparse=True: .* give `encoder=bag`"),
        ({"encoder": "gru", "pairs": 5}, "^pairs=5: .* give `encoder=bag`"),
        ({"pairs": -1}, "^pairs=-1: give 0"),
        ({"encoder": "ngrams", "subwords": -1}, "^subwords=-1: give 0"),
        ({"encoder": "transformer", "num_heads": 5}, "^num_heads=5: give a divisor of `embedding_dim=16`"),
        ({"num_heads": 0}, "^num_heads=0: give 1 or more"),
        ({"num_layers": 0}, "^num_layers=0: give 1 or more"),
        ({"embedding_dim": 0}, "^embedding_dim=0: give 1 or more"),
        ({"width": 0}, "^width=0: give 1 or more"),
        ({"max_length": 0}, "^max_length=0: give 1 or more"),
        ({"vocab_size": 1}, "^vocab_size=1: "),
        ({"dropout": 1.0}, "^dropout=1.0: "),
        ({"task": "next_token", "num_outputs": VOCAB}, "^task='next_token': LitTextClassifier .* use LitGPT"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as found:
        _small(**options)
    assert "\n" not in str(found.value)


def test_the_transformer_says_what_is_too_long() -> None:
    model = _small("transformer", max_length=8)
    assert model(torch.ones(1, 8, dtype=torch.long)).isfinite().all()
    with pytest.raises(ModelError, match=r"^max_length=8: .* 9 tokens"):
        model(torch.ones(1, 9, dtype=torch.long))


@pytest.mark.parametrize("x", [torch.rand(4, 8), torch.ones(4, 3, 2, dtype=torch.long)], ids=["floats", "shape"])
def test_other_things_than_ids_are_refused(x: Tensor) -> None:
    with pytest.raises(ModelError, match="token ids"):
        _small()(x)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_ids_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    model, (ids,) = _small().eval(), _texts(6)
    torch.testing.assert_close(model(ids[None].to(dtype)), model(ids[None]))
