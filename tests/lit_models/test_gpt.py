"""A language model: what it measures, what trains it, and what it writes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_models import LitGPT, ModelError
from lit_models.optim.factory import CompositeOptimizer, make_optimizer

VOCABULARY, CONTEXT = 11, 8
SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "width": 16}


def make(seed: int = 0, **options: Any) -> LitGPT:
    """Make a small model with something to say: its logits differ by more than those of a new one."""
    torch.manual_seed(seed)
    model = LitGPT(VOCABULARY, CONTEXT, **{**SIZES, **options})
    for parameter in model.net.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    return model


def prompts(length: int = 3, count: int = 2) -> Tensor:
    return torch.randint(VOCABULARY, (count, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0}, {"temperature": 1.3}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.9}],
    ids=lambda how: " ".join(how),
)
@pytest.mark.parametrize("length", [1, CONTEXT, CONTEXT + 5])
def test_with_a_cache_the_same_is_written(how: dict[str, Any], length: int) -> None:
    model, written = make(), []
    for use_cache in (True, False):
        generator = torch.Generator().manual_seed(2)
        written.append(model.generate(prompts(length), 40, generator=generator, use_cache=use_cache, **how))
    assert torch.equal(*written)
    assert written[0].shape == (2, 40)
    assert len(written[0].unique()) > 1


def test_the_most_likely_tokens_equal_those_of_a_full_forward_pass() -> None:
    model = make().eval()
    ids = prompts(2)
    for _ in range(CONTEXT - 2):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1].argmax(1, keepdim=True)], dim=1)
    assert torch.equal(model.generate(ids[:, :2], CONTEXT - 2, temperature=0), ids[:, 2:])


def test_a_long_prompt_is_read_from_where_the_context_begins() -> None:
    model, long = make(), prompts(CONTEXT + 4)
    assert torch.equal(model.generate(long, 5, temperature=0), model.generate(long[:, -CONTEXT:], 5, temperature=0))


def test_a_prompt_gives_the_same_alone_and_in_a_batch() -> None:
    model, several = make(), prompts(4, count=3)
    together = model.generate(several, 20, temperature=0)
    for alone, expected in zip(several, together, strict=True):
        assert torch.equal(model.generate(alone[None], 20, temperature=0)[0], expected)


def test_generating_changes_neither_model_nor_random_state() -> None:
    model = make(dropout=0.5).train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    first = model.generate(prompts(), 30, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not first.requires_grad
    assert torch.equal(first, model.generate(prompts(), 30, generator=torch.Generator().manual_seed(3)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_settings_are_the_models_own_unless_given() -> None:
    model = make(max_new_tokens=4, temperature=0.0)
    assert torch.equal(model.generate(prompts()), model.generate(prompts(), 4, temperature=0))
    assert torch.equal(model.predict_step(prompts(), 0), model.generate(prompts()))
    assert model.generate(prompts(), 0).shape == (2, 0)


def windows(count: int = 6) -> tuple[Tensor, Tensor]:
    """Give tokens and the next ones, of which the last row has no more than three."""
    tokens = torch.randint(VOCABULARY, (count, CONTEXT + 1), generator=torch.Generator().manual_seed(4))
    y = tokens[:, 1:].clone()
    y[-1, 3:] = -100
    return tokens[:, :-1], y


def loader(batch_size: int) -> DataLoader[Any]:
    return DataLoader(list(zip(*windows(), strict=True)), batch_size=batch_size)  # type: ignore[arg-type]


def quiet(**options: Any) -> Trainer:
    hidden = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", enable_checkpointing=False, **{**hidden, **options})


def test_metrics_are_means_over_all_tokens() -> None:
    model = make()
    model.load_statistics({"token_lengths": torch.arange(VOCABULARY)})
    x, y = windows()
    [found] = quiet().validate(model, loader(4), verbose=False)
    with torch.no_grad():
        nats = F.cross_entropy(model.eval()(x).flatten(0, 1), y.flatten(), reduction="sum").item()
    count, characters = int((y != -100).sum()), int(y[y != -100].sum())
    assert count == 5 * CONTEXT + 3
    assert found["val_loss"] == pytest.approx(nats / count, rel=1e-5)
    assert found["val_perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found["val_bits_per_char"] == pytest.approx(nats / characters / math.log(2), rel=1e-5)
    # A second time, by other batches.
    [again] = quiet().test(model, loader(5), verbose=False)
    assert again["test_bits_per_char"] == pytest.approx(found["val_bits_per_char"], rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_is_logged_of_training_is_the_mean(reduction: Any) -> None:  # noqa: ANN401  # a literal
    model = make(reduction=reduction, lr=0.0)
    trainer = quiet(max_epochs=1)
    trainer.fit(model, loader(4))
    x, y = windows()
    with torch.no_grad():
        expected = F.cross_entropy(model.eval()(x).flatten(0, 1), y.flatten()).item()
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_knows_how_long_tokens_are(tmp_path: Path) -> None:
    model = make()
    model.load_statistics({"token_lengths": torch.arange(VOCABULARY)})
    trainer = quiet()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LitGPT.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.token_lengths.tolist() == list(range(VOCABULARY))
    assert torch.equal(loaded.generate(prompts(), 9, temperature=0), model.generate(prompts(), 9, temperature=0))


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon", "SGD"])
def test_each_weight_has_its_optimizer(optimizer: str) -> None:
    model = make(optimizer=optimizer, lr=0.01, weight_decay=0.1)
    made = make_optimizer(model.optimization["optimizer"], model.param_groups())
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[p]: group for group in made.param_groups for p in group["params"]}
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, group in found.items():
        assert group["lr"] == 0.01
        assert group["weight_decay"] == (0.0 if "norm" in name else 0.1)
    if optimizer == "Muon":
        assert isinstance(made, CompositeOptimizer)
        by_muon = {names[p] for p in (p for group in made.optimizers[0].param_groups for p in group["params"])}
        assert by_muon == {name for name in found if "blocks" in name and "norm" not in name}
    else:
        assert type(made).__name__ == optimizer


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_it_learns_a_text_by_heart(optimizer: str) -> None:
    torch.manual_seed(0)
    text = torch.arange(60) ** 2 % VOCABULARY
    batch = torch.stack([text[at : at + CONTEXT + 1] for at in range(50)])
    rows = list(zip(batch[:, :-1], batch[:, 1:], strict=True))
    model = LitGPT(VOCABULARY, CONTEXT, **SIZES, optimizer=optimizer, lr=0.01)
    quiet(max_epochs=40).fit(model, DataLoader(rows, batch_size=10))  # type: ignore[arg-type]
    written = model.generate(text[None, :CONTEXT], 30, temperature=0)
    assert torch.equal(written[0], text[CONTEXT : CONTEXT + 30])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "binary"}, "LitTextClassifier"),
        ({"width": 18, "num_heads": 4}, "multiple of 8"),
        ({"num_heads": 0}, "^num_heads=0: "),
        ({"context_length": 0}, "^context_length=0: "),
        ({"dropout": 1.0}, "^dropout=1.0: "),
        ({"temperature": -1.0}, "^temperature=-1.0: "),
        ({"top_k": -1}, "^top_k=-1: "),
        ({"top_p": 0.0}, "^top_p=0.0: "),
        ({"top_p": 1.5}, "^top_p=1.5: "),
        ({"max_new_tokens": -1}, "^max_new_tokens=-1: "),
        ({"label_smoothing": 0.1}, "^label_smoothing=0.1: "),
        ({"loss": "MSELoss"}, "a next_token task takes CrossEntropyLoss"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LitGPT(**options)


def test_a_model_with_nan_logits_generates_nothing() -> None:
    model = make()
    model.net.embedding.weight.data.fill_(math.nan)
    for temperature in (0, 1):
        with pytest.raises(FloatingPointError, match="at a smaller lr"):
            model.generate(prompts(), 3, temperature=temperature)


def test_the_smallest_temperature_takes_the_most_likely_token() -> None:
    model = make()
    coldest = model.generate(prompts(), 20, temperature=1e-45)
    assert torch.equal(coldest, model.generate(prompts(), 20, temperature=0))


def test_muon_scales_its_steps_as_it_is_told() -> None:
    model = make()
    for asked, expected in (("original", "original"), (None, "match_rms_adamw")):
        arguments = {"lr": 0.01, "adjust_lr_fn": asked}
        model.optimizer_config = {"class_path": "torch.optim.Muon", "init_args": arguments}
        made = make_optimizer(model.optimization["optimizer"], model.param_groups())
        assert made.param_groups[0]["adjust_lr_fn"] == expected


def test_generating_restores_the_mode_of_every_module() -> None:
    model = make().train()
    model.net.blocks[0].eval()
    model.generate(prompts(), 3)
    assert not model.net.blocks[0].training
    assert model.net.blocks[1].training


def test_impossible_prompts_are_refused() -> None:
    model = make()
    with pytest.raises(ModelError, match=r"^context_length=8: 9 tokens are too many"):
        model(prompts(CONTEXT + 1))
    with pytest.raises(ModelError, match="T 1 or more"):
        model.generate(prompts(0))
    with pytest.raises(ModelError, match=r"^top_p=2: "):
        model.generate(prompts(), top_p=2)
