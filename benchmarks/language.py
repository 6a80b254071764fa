"""A small GPT: `train.py` against a loop written by hand, what two optimizers reach, and cached generation."""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything

from benchmarks.front_door import train
from benchmarks.interleaved import compare, seconds_of
from datamodules import TextCorpusDataModule
from kindling.cli import KindlingCLI
from lit_models import LitGPT

RECIPE = Path(__file__).parent.parent / "configs" / "gpt_shakespeare_char.yaml"
STEPS, VALIDATIONS = 2000, 4
OPTIMIZERS = {
    "Muon for matrices, AdamW for the rest (the recipe)": (1200, ""),
    "AdamW for all": (2000, "--model.optimizer AdamW --model.lr 0.005"),
}


def run(data_dir: str, rounds: int = 3) -> None:
    """Print the tables.

    Args:
        data_dir: A folder with `text/tinyshakespeare.txt`.
        rounds: How often each contender trains.
    """
    corpus = str(Path(data_dir).resolve() / "text" / "tinyshakespeare.txt")
    with tempfile.TemporaryDirectory() as cache:
        losses: dict[str, list[float]] = {"loop": [], "train.py": []}

        def loop() -> float:
            seconds, loss = _loop(corpus, cache)
            losses["loop"].append(loss)
            return seconds

        def front_door() -> float:
            cli = _train(corpus, cache)
            losses["train.py"].append(cli.summary.summary["best"]["val_loss"])
            return float(cli.summary.summary["seconds"])

        contenders = {"PyTorch loop": loop, "python train.py": front_door}
        compare(f"{STEPS:,} steps of gpt_shakespeare_char, with {VALIDATIONS} validations", contenders, rounds)
        for name, found in losses.items():
            print(f"{name}: validation loss {', '.join(f'{loss:.4f}' for loss in found)}")
        _optimizers(corpus, cache)
    _generation(rounds)


def _loop(corpus: str, cache: str) -> tuple[float, float]:
    """Train the same network on the same tokens, and return seconds and the last validation loss."""
    seed_everything(0, verbose=False)
    data = TextCorpusDataModule(corpus, cache_dir=cache, context_length=64, test_fraction=0)
    text = Path(corpus).read_text()
    tokens = data.encode(text)
    train, val = tokens.tensor_split([int(0.9 * len(text))])
    model = LitGPT(data.vocab_size, 64)
    start = time.perf_counter()
    net, window, last = model.net, torch.arange(65), 0.0
    matrices = [p for p in net.blocks.parameters() if p.ndim == 2]
    vectors = [p for p in net.parameters() if p.ndim != 2]
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    rest: list[dict[str, Any]] = [{"params": [net.embedding.weight]}, {"params": vectors, "weight_decay": 0.0}]
    optimizers = [
        torch.optim.Muon(matrices, momentum=0.9, adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW(rest, fused=True, **options),
    ]
    schedulers = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, STEPS, cycle_momentum=False) for optimizer in optimizers
    ]
    for step in range(1, STEPS + 1):
        batch = train[torch.randint(len(train) - 64, (12, 1)) + window]
        loss = F.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        net.zero_grad()
        loss.backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        if step % (STEPS // VALIDATIONS) == 0:
            net.eval()
            with torch.no_grad():
                batches = val[torch.arange(0, len(val) - 64, 64)[:, None] + window].split(12)
                found = [F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()) for x in batches]
            last = torch.stack(found).mean().item()
            net.train()
    return time.perf_counter() - start, last


def _train(corpus: str, cache: str, options: str = "") -> KindlingCLI:
    """Run the recipe."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        line = f"--config {RECIPE} --data.path {corpus} --data.cache_dir {cache} --accelerator cpu {options}"
        cli, _ = train(line, progress=True)
        for logger in cli.trainer.loggers:
            logger.finalize("success")  # before its folder goes
        return cli


def _optimizers(corpus: str, cache: str) -> None:
    """Print what the recipe reaches by Muon, as it stands, and by AdamW alone in more steps and more time."""
    print("\nThe recipe by two optimizers, each with its whole schedule and one validation at the end\n")
    print("| | steps | seconds | val_loss |")
    print("|---|---|---|---|")
    for name, (steps, options) in OPTIMIZERS.items():
        summary = _train(corpus, cache, f"--max_steps {steps} --val_check_interval {steps} {options}").summary.summary
        print(f"| {name} | {steps:,} | {summary['seconds']:.1f} | {summary['best']['val_loss']:.4f} |", flush=True)


def _generation(rounds: int) -> None:
    torch.manual_seed(0)
    model, prompt = LitGPT(context_length=512).eval(), torch.randint(67, (1, 16))

    def write(use_cache: bool) -> float:
        return seconds_of(lambda: model.generate(prompt, 256, use_cache=use_cache))

    contenders = {"without a KV cache": lambda: write(False), "with a KV cache": lambda: write(True)}
    compare("256 tokens by a GPT of 4 layers, 4 heads, 128 wide, context 512", contenders, 2 * rounds + 1)
