"""Several optimizers as one, for weights that no single optimizer can train."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class CompositeOptimizer(Optimizer):
    """Optimizers with different parameters that step, are scheduled and are saved together.

    The composite and its optimizers share the same dictionaries of parameter groups and state: a schedule sets a
    learning rate in both, and one `state_dict` holds all. With several optimizers Lightning requires manual
    optimization; this is one.

    Args:
        optimizers: At least one; their parameter groups follow one another in this order.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        first, *others = [optimizer.defaults for optimizer in self.optimizers]
        # Schedules look here for options that every group has, such as a cycled momentum.
        common = {name: value for name, value in first.items() if all(name in other for other in others)}
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], common)
        for optimizer in self.optimizers:  # some have a state before the first step
            self.state.update(optimizer.state)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            own = [next(groups) for _ in optimizer.param_groups]
            # `__setstate__` adds options that a state of an older version of torch lacks.
            optimizer.__setstate__({"state": self.state, "param_groups": own})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401  # torch's signature
        """Take a step of each optimizer.

        Args:
            closure: Computes the gradients, once for all optimizers, and returns the loss.

        Returns:
            The loss, if a closure is given.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state from `state_dict`, and share it with the optimizers again."""
        super().load_state_dict(state_dict)
        self._share()
