"""A small decoder-only language model: it reads a text, and goes on with it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lit_models.base import Batch, LitModule, MeanLoss
from lit_models.errors import ModelError
from lit_models.modules.transformer import GPT
from lit_models.tasks import IGNORED, TaskName


def sample(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Draw a token from each row of logits.

    Args:
        logits: Shape `(B, vocab_size)`.
        temperature: What the logits are divided by; 0 takes the likeliest.
        top_k: From how many of the likeliest tokens to draw; 0 for all.
        top_p: From the fewest tokens of which the probabilities add up to this (Holtzman et al. 2020); 1 for all.
        generator: Where the randomness comes from; torch's own by default.

    Returns:
        Shape `(B, 1)`.
    """
    if temperature == 0:
        return logits.argmax(1, keepdim=True)
    # The highest becomes 0, which no temperature makes infinite.
    logits = (logits - logits.amax(1, keepdim=True)) / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -math.inf)
    probabilities = logits.softmax(1)
    if top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        beyond = ordered.cumsum(1) - ordered >= top_p  # the likeliest always stays
        probabilities = torch.zeros_like(probabilities).scatter(1, tokens, ordered.masked_fill(beyond, 0))
    return probabilities.multinomial(1, generator=generator)


class LitGPT(LitModule):
    """A small language model, which learns what comes next in a text, and writes.

    `val_loss` is in nats for each token; beside it stand its exponential, the perplexity, and bits per character, which
    can be compared whatever the tokens are. `Muon` for an `optimizer` (Jordan et al. 2024) trains the matrices of the
    blocks, and AdamW the rest.

    Args:
        vocab_size: How many different tokens there are.
        context_length: How many tokens it looks at.
        num_layers: Blocks.
        num_heads: Heads of each attention.
        width: Numbers for each token.
        dropout: Share of attention, and of what each block adds, that is dropped in training.
        max_new_tokens: How many tokens are written after a prompt.
        temperature: How freely: 0 takes the likeliest token, 1 draws by the probabilities that were learned.
        top_k: Draw from this many of the likeliest tokens; 0 for all.
        top_p: Draw from the fewest tokens of which the probabilities add up to this; 1 for all.
        task: The task; the next token.
        lr: Learning rate.
        weight_decay: Weight decay, of matrices alone.
        kwargs: Options of `LitModule`.

    Raises:
        ModelError: If an option is impossible, or the task another.
    """

    net: GPT
    token_lengths: Tensor

    def __init__(
        self,
        vocab_size: int = 67,
        context_length: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        width: int = 128,
        dropout: float = 0.0,
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        task: TaskName = "next_token",
        lr: float = 3e-3,
        weight_decay: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if task != "next_token":
            raise ModelError(f"--model LitGPT: this is a {task} task; give LitTextClassifier, or a running text.")
        kwargs["num_outputs"] = vocab_size
        super().__init__(task=task, lr=lr, weight_decay=weight_decay, **kwargs)
        _check_sampling(max_new_tokens, temperature, top_k, top_p)
        self.net = GPT(vocab_size, context_length, num_layers, num_heads, width, dropout)
        self.example_input_array = torch.zeros(2, context_length, dtype=torch.long)
        # How many characters each token stands for; of a model that never saw a text, one.
        self.register_buffer("token_lengths", torch.ones(vocab_size, dtype=torch.long))
        self._characters = MeanLoss()  # for each token that was to be predicted

    def normalize(self, x: Tensor) -> Tensor:
        """Give the network its tokens as they are."""
        return x

    def take_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take over how many characters each token stands for."""
        if "token_lengths" in statistics:
            self.token_lengths.copy_(statistics["token_lengths"])

    def _measure(self, batch: Batch, mean_loss: MeanLoss, metrics: MetricCollection) -> Tensor:
        _, scores, y = self._shared_step(batch, mean_loss)
        known = y != IGNORED
        count = known.sum()
        characters = (self.token_lengths[y.clamp(min=0)] * known).sum()  # what is ignored has no length
        self._characters.update(characters / count.clamp(min=1), count)
        return scores

    def _log_loss(self, name: str, loss: Tensor) -> None:
        super()._log_loss(name, loss)
        characters = self._epoch_mean(self._characters)
        if characters is not None:
            stage = name.removesuffix("loss")
            self.log(f"{stage}perplexity", loss.exp(), sync_dist=True)
            self.log(f"{stage}bits_per_char", loss / characters / math.log(2), sync_dist=True)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Write what comes after each prompt; see `generate`."""
        return self.generate(batch if isinstance(batch, Tensor) else batch[0])

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """Write.

        The model looks at the last `context_length` tokens of a prompt. When there is no room for more, it goes on from
        the last half of what it sees.

        Args:
            ids: Prompts, `(B, T)`, of one length and at least one token.
            max_new_tokens: How many tokens to write; as those that follow, the model's own setting by default.
            temperature: See `LitGPT`.
            top_k: See `LitGPT`.
            top_p: See `LitGPT`.
            generator: Where the randomness comes from, on the model's device; torch's own by default.
            use_cache: Whether to keep the keys and values of what was read; without, all is read again for every token.

        Returns:
            The new tokens, `(B, max_new_tokens)`.

        Raises:
            ModelError: If there is no prompt, or an option is impossible.
            FloatingPointError: If the model has diverged, and its scores are no numbers.
        """
        if ids.ndim != 2 or not ids.shape[1]:
            raise ModelError(f"a prompt is (B, T) tokens, with T 1 or more, not {tuple(ids.shape)}.")
        settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        chosen = {name: self.hparams[name] if value is None else value for name, value in settings.items()}
        _check_sampling(**chosen)
        count = chosen.pop("max_new_tokens")
        modes = {module: module.training for module in self.net.modules()}  # what is frozen may be in eval mode
        self.net.eval()
        try:
            seen, cache = ids[:, -self.net.context_length :], self.net.make_cache()
            written: list[Tensor] = []
            for _ in range(count):
                if seen.shape[1] > self.net.context_length:
                    seen, cache = seen[:, -max(1, self.net.context_length // 2) :], self.net.make_cache()
                logits = self.net(seen[:, cache[0].length :], cache) if use_cache else self.net(seen)
                if not written and not logits.isfinite().all():  # once: a GPU must be waited for
                    raise FloatingPointError(
                        "this model has diverged, and writes nothing; train it at a smaller --model.lr."
                    )
                written.append(sample(logits[:, -1].float(), **chosen, generator=generator))
                seen = torch.cat([seen, written[-1]], dim=1)
            return torch.cat(written, dim=1) if written else ids[:, :0]
        finally:
            for module, mode in modes.items():
                module.training = mode


def _check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    for name, value in {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}.items():
        if value < 0:
            raise ModelError(f"--model.{name} {value}: give 0 or more.")
    if not 0 < top_p <= 1:
        raise ModelError(f"--model.top_p {top_p}: give a share above 0, up to 1.")
