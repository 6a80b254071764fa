"""A small language model: it learns the next token of a text, and generates text."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lit_models.base import Batch, LitModule
from lit_models.errors import ModelError, check_non_negative
from lit_models.metrics import MeanLoss
from lit_models.modules.transformer import GPT
from lit_models.tasks import IGNORED, TaskName


def check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    """Raise a ModelError if a number is negative, or `top_p` not in (0, 1]."""
    check_non_negative(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k)
    if not 0 < top_p <= 1:
        raise ModelError("give a share above 0, up to 1", option="top_p", value=top_p)


def sample(
    logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None = None
) -> Tensor:
    """Sample a token id, `(B, 1)`, from each row of logits, `(B, vocab_size)`.

    The generator is on the device of the logits; `top_p` is nucleus sampling (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(1, keepdim=True)
    # The highest logit becomes 0, which stays finite at any temperature but 0, as which a subnormal number may count.
    logits = (logits - logits.amax(1, keepdim=True)) / max(temperature, torch.finfo(logits.dtype).tiny)
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -math.inf)
    probabilities = logits.softmax(1)
    if top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        excluded = ordered.cumsum(1) - ordered >= top_p  # never the most likely token
        probabilities = torch.zeros_like(probabilities).scatter(1, tokens, ordered.masked_fill(excluded, 0))
    return probabilities.multinomial(1, generator=generator)


class LitGPT(LitModule):
    """A small language model, which learns the next token of a text, and generates text.

    `val_loss` is in nats per token. Its exponential, the perplexity, is logged too, and bits per character, which can
    be compared across tokenizers. `optimizer="Muon"` (Jordan et al. 2024) trains the matrices of the blocks, and AdamW
    the rest.

    Args:
        vocab_size: Number of different tokens.
        context_length: Number of tokens that the network sees.
        num_layers: Number of blocks.
        num_heads: Attention heads of each block.
        width: Size of a token's embedding.
        dropout: Share of attention, and of each block's output, that is dropped in training.
        max_new_tokens: Number of tokens to generate after a prompt.
        temperature: Divisor of the logits: 0 takes the most likely token, 1 samples by the learned probabilities.
        top_k: Number of the most likely tokens to sample from; 0 for all.
        top_p: Sample from the smallest set of tokens whose probabilities sum to this; 1 for all.
        task: `next_token`, the only task.
        lr: Learning rate.
        weight_decay: Weight decay, of matrices only.
        kwargs: Options of `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the task is another one.
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
            raise ModelError("LitGPT predicts next tokens", "use LitTextClassifier, or a running text", "task", task)
        kwargs["num_outputs"] = vocab_size
        super().__init__(task=task, lr=lr, weight_decay=weight_decay, **kwargs)
        check_sampling(max_new_tokens, temperature, top_k, top_p)
        self.net = GPT(vocab_size, context_length, num_layers, num_heads, width, dropout)
        self.initialize()
        self.example_input_array = torch.zeros(2, context_length, dtype=torch.long)
        # Characters of each token, for bits per character; 1 until statistics are loaded.
        self.register_buffer("token_lengths", torch.ones(vocab_size, dtype=torch.long))
        self._characters = MeanLoss()  # per target token

    def normalize(self, x: Tensor) -> Tensor:
        """Return tokens unchanged."""
        return x

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Load the number of characters of each token, `token_lengths`, `(vocab_size,)`."""
        if "token_lengths" in statistics:
            self.token_lengths.copy_(statistics["token_lengths"])

    def _eval_step(self, batch: Batch, mean_loss: MeanLoss, metrics: MetricCollection) -> Tensor:
        _, logits, y = self._shared_step(batch, mean_loss)
        is_target = y != IGNORED
        count = is_target.sum()
        characters = (self.token_lengths[y.clamp(min=0)] * is_target).sum()
        self._characters.update(characters / count.clamp(min=1), count)
        return logits

    def _log_loss(self, name: str, loss: Tensor) -> None:
        super()._log_loss(name, loss)
        characters = self._epoch_mean(self._characters)
        if characters is not None:
            stage = name.removesuffix("loss")
            self.log(f"{stage}perplexity", loss.exp(), sync_dist=True)
            self.log(f"{stage}bits_per_char", loss / characters / math.log(2), sync_dist=True)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Generate tokens after each prompt; see `generate`."""
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
        """Generate tokens, `(B, max_new_tokens)`, that continue each prompt, `(B, T)`, in evaluation mode.

        The network sees the last `context_length` tokens. When its context is full, it continues from the last half of
        it. Settings that are None are the model's own. The generator is on the device of the network; without
        `use_cache`, keys and values of past tokens are computed again for every token.

        Raises:
            ModelError: If there is no prompt, or an option is invalid.
            FloatingPointError: If the model has diverged, and its logits are not finite.
        """
        if ids.ndim != 2 or not ids.shape[1]:
            raise ModelError(f"a prompt is (B, T) tokens, with T 1 or more, not {tuple(ids.shape)}")
        given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        sampling: dict[str, Any] = {name: self.hparams[name] if x is None else x for name, x in given.items()}
        check_sampling(**sampling)
        net, length = self.net, sampling.pop("max_new_tokens")
        modes = {module: module.training for module in net.modules()}  # frozen parts may be in eval mode already
        net.eval()
        new: list[Tensor] = []
        try:
            context, cache = ids[:, -net.context_length :], net.make_cache()
            for _ in range(length):
                if context.shape[1] > net.context_length:
                    context, cache = context[:, -max(1, net.context_length // 2) :], net.make_cache()
                logits = net(context[:, cache[0].length :], cache) if use_cache else net(context)
                if not new and not logits.isfinite().all():  # checked once, as it forces a GPU sync
                    raise FloatingPointError("this model has diverged, and writes nothing; train it at a smaller lr.")
                new.append(sample(logits[:, -1].float(), **sampling, generator=generator))
                context = torch.cat([context, new[-1]], dim=1)
            return torch.cat(new, dim=1) if new else ids[:, :0]
        finally:
            for module, mode in modes.items():
                module.training = mode
