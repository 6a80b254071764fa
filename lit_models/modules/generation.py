"""Text generation: sampling tokens from a language model one by one."""

import math

import torch
from torch import Tensor

from lit_models.errors import ModelError, check_non_negative
from lit_models.modules.transformer import GPT


def check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    """Raise a ModelError if a number is negative, or `top_p` not in (0, 1]; see `generate`."""
    check_non_negative(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k)
    if not 0 < top_p <= 1:
        raise ModelError("give a share above 0, up to 1", option="top_p", value=top_p)


def sample(
    logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None = None
) -> Tensor:
    """Sample a token from each row of logits.

    Args:
        logits: Shape `(B, vocab_size)`.
        temperature: Divisor of the logits; 0 takes the most likely token.
        top_k: Number of the most likely tokens to sample from; 0 for all.
        top_p: Sample from the smallest set of tokens whose probabilities sum to this (Holtzman et al. 2020); 1 for all.
        generator: Random number generator, on the device of the logits; torch's own by default.

    Returns:
        Token ids, shape `(B, 1)`.
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
    """Generate tokens that continue each prompt.

    The network sees the last `context_length` tokens. When its context is full, it continues from the last half of it.

    Args:
        net: A language model; it is in evaluation mode meanwhile.
        ids: Prompts, `(B, T)`, of one length and at least one token.
        max_new_tokens: Number of tokens to generate.
        temperature: See `sample`.
        top_k: See `sample`.
        top_p: See `sample`.
        generator: See `sample`.
        use_cache: Whether to keep keys and values of past tokens; otherwise all are computed again for every token.

    Returns:
        The new tokens, `(B, max_new_tokens)`.

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
