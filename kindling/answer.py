"""What is said after a test: metrics with their intervals, baselines beside them, and what a better one means."""

from collections.abc import Mapping, Sequence
from typing import Any

from kindling.baselines import Baseline
from kindling.intervals import Interval, Outcome, difference


def figure(value: float) -> str:
    """Return a metric with the digits that matter."""
    return f"{value:{'.4f' if abs(value) < 100 else '.6g'}}"


def bounds(interval: Interval) -> str:
    """Return an interval, with fewer digits than its metric."""
    most = max(map(abs, interval))
    digits = ".3f" if 0.1 <= most < 100 else ".3g" if most < 0.1 else ".4g" if most < 1e4 else ".0f"
    return f"({interval[0]:{digits}} to {interval[1]:{digits}})"


def with_intervals(metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> list[str]:
    """Return each metric with its value, and its interval if it has one."""
    shown = {name: f" {bounds(intervals[name])}" for name in intervals}
    return [f"{name} {figure(value)}{shown.get(name, '')}" for name, value in metrics.items()]


def table(baselines: Sequence[Baseline], left_out: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Return a line for each baseline, the best kinds first, with the metrics of these names."""
    if not baselines:
        return []
    count, of = len(baselines[0].outcome("").y), baselines[0].of
    lines = [f"  baselines on the same {count:,} test samples, fitted on the {of:,} of train and validation:"]
    width = max(len(baseline.name) for baseline in baselines)
    for baseline in reversed(baselines):
        metrics = [f"{name} {figure(value)}" for name, value in baseline.metrics(names).items()]
        part = [f"on {baseline.rows:,} of {of:,}"] * (baseline.rows < of)
        lines.append("  ".join([f"  {baseline.name:<{width}}", *metrics, *part]))
    return lines + [f"  {name}: left out, as {why}" for name, why in left_out.items()]


def entries(baselines: Sequence[Baseline], names: Sequence[str]) -> dict[str, Any]:
    """Return baselines as `summary.json` holds them, by their names."""
    return {
        baseline.name: {
            **baseline.metrics(names),
            "samples": baseline.rows,
            "of": baseline.of,
            "seconds": round(baseline.seconds, 3),
        }
        for baseline in baselines
    }


def verdict(outcome: Outcome, baselines: Sequence[Baseline]) -> list[str]:
    """Return what it means that a baseline is better than the model; nothing if none is."""
    name, sign = ("rmse", -1) if outcome.kind == "regression" else ("acc", 1)
    ours = outcome.measures[name].value

    def value(baseline: Baseline) -> float:
        return baseline.outcome(name).measures[name].value

    best = max(baselines, key=lambda baseline: sign * value(baseline), default=None)
    if best is None or sign * (value(best) - ours) <= 0:
        return []
    low, high = difference(best.outcome(name), outcome, name)
    said = f"A baseline is better: {best.name}, test_{name} {figure(value(best))} against {figure(ours)}"
    gap = f"the difference is {figure(low)} to {figure(high)}"
    if not (low > 0 or high < 0):
        unit = "samples" if outcome.groups is None else "groups"
        return [f"{said}; but {outcome.units:,} test {unit} are too few to be sure of it ({gap})."]
    if best.is_constant:
        meaning = "This model has learned nothing that helps: check the target and the columns, or train it longer."
    else:
        meaning = "As it stands, this model is not worth its effort: use the baseline, or other settings or models."
    return [f"{said} ({gap}).", meaning]
