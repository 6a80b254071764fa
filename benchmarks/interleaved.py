"""Fair timing: contenders take turns, so that other load on the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def seconds_of(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(title: str, contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run every contender once a round and print a table of medians, spreads and ratios to the first one.

    Args:
        title: What is measured.
        contenders: By name, what runs the contender once and gives its seconds.
        rounds: How often each runs.

    Returns:
        The median seconds of each contender.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender())
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    # Ratios within a round: both parts of such a pair ran under the same load.
    first, *_ = seconds.values()
    print(f"\n{title} ({rounds} interleaved rounds)\n")
    print("| | median s | min s | max s | median ratio to the first |")
    print("|---|---|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(time / base for time, base in zip(times, first, strict=True))
        print(f"| {name} | {medians[name]:.4f} | {min(times):.4f} | {max(times):.4f} | {ratio:.3f} |", flush=True)
    return medians
