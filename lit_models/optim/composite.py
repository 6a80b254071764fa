"""Several optimizers that are one: for weights that no single one can train."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class CompositeOptimizer(Optimizer):
    """Optimizers, each with parameters of its own, that step, are scheduled and are saved together.

    They share their parameter groups, the very dictionaries, and their state: a schedule that sets a learning rate sets
    it in the optimizer whose group it is, and one `state_dict` holds all. Lightning, which wants manual optimization
    where there are several optimizers, takes it for one.

    Args:
        optimizers: At least one; their parameter groups follow one another in this order.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        first, *others = [optimizer.defaults for optimizer in self.optimizers]
        # A schedule looks here for what it may set in every group, as a cycled momentum.
        common = {name: value for name, value in first.items() if all(name in other for other in others)}
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], common)
        for optimizer in self.optimizers:  # some have a state from the start
            self.state.update(optimizer.state)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            own = [next(groups) for _ in optimizer.param_groups]
            # Not assigned one by one: what is loaded may be older than what an optimizer has to find in it.
            optimizer.__setstate__({"state": self.state, "param_groups": own})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401  # torch's signature
        """Take a step of each optimizer.

        Args:
            closure: If given, computes the gradients, once for all, and gives the loss.

        Returns:
            The loss, if there is a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, which `state_dict` gave, and share it out anew."""
        super().load_state_dict(state_dict)
        self._share()
