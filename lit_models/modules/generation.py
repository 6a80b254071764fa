"""Text generation: sampling tokens from a language model one by one. The settings are those of `LitGPT`."""

import math

import torch
from torch import Tensor

from lit_models.errors import ModelError, check_non_negative
from lit_models.modules.transformer import GPT


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
    # The highest logit becomes 0, which stays finite at any temperature.
    logits = (logits - logits.amax(1, keepdim=True)) / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -math.inf)
    probabilities = logits.softmax(1)
    if top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        excluded = ordered.cumsum(1) - ordered >= top_p  # never the most likely token
        probabilities = torch.zeros_like(probabilities).scatter(1, tokens, ordered.masked_fill(excluded, 0))
    return probabilities.multinomial(1, generator=generator)


@torch.no_grad()
def generate(
    net: GPT,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Generate tokens, `(B, max_new_tokens)`, that continue each prompt, `(B, T)`, with `net` in evaluation mode.

    The network sees the last `context_length` tokens. When its context is full, it continues from the last half of it.
    Without `use_cache`, keys and values of past tokens are computed again for every token.

    Raises:
        ModelError: If there is no prompt, or an option is impossible.
        FloatingPointError: If the logits are not finite.
    """
    if ids.ndim != 2 or not ids.shape[1]:
        raise ModelError(f"a prompt is (B, T) tokens, with T 1 or more, not {tuple(ids.shape)}")
    check_sampling(max_new_tokens, temperature, top_k, top_p)
    modes = {module: module.training for module in net.modules()}  # frozen parts may be in eval mode already
    net.eval()
    try:
        context, cache = ids[:, -net.context_length :], net.make_cache()
        new: list[Tensor] = []
        for _ in range(max_new_tokens):
            if context.shape[1] > net.context_length:
                context, cache = context[:, -max(1, net.context_length // 2) :], net.make_cache()
            logits = net(context[:, cache[0].length :], cache) if use_cache else net(context)
            if not new and not logits.isfinite().all():  # checked once, as it forces a GPU sync
                raise FloatingPointError("this model has diverged, and writes nothing; train it at a smaller lr.")
            new.append(sample(logits[:, -1].float(), temperature, top_k, top_p, generator))
            context = torch.cat([context, new[-1]], dim=1)
        return torch.cat(new, dim=1) if new else ids[:, :0]
    finally:
        for module, mode in modes.items():
            module.training = mode
