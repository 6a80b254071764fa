"""Measure everything: `python -m benchmarks --data_dir data`."""

import argparse
import importlib

import torch

from kindling.errors import filter_warnings

# The benchmarks, and what each is given of the command line.
ARGUMENTS = {
    "data_path": ["data_dir"],
    "training_step": ["data_dir"],
    "start_up": [],
    "parsing": [],
    "streaming": [],
    "tables": ["data_dir"],
    "images": ["data_dir"],
    "transfer": ["data_dir"],
    "text": ["data_dir"],
    "language": ["data_dir"],
    "distillation": ["data_dir", "teacher"],
}


def main() -> None:
    """Run one benchmark or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data_dir", default="data", help="folder with MNIST, FashionMNIST, hymenoptera_data, tabular/*.csv and text/*"
    )
    parser.add_argument("--teacher", help="a checkpoint of mnist_conv, which distillation otherwise trains first")
    parser.add_argument("--only", choices=list(ARGUMENTS), help="run this one")
    args = parser.parse_args()
    filter_warnings()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in [args.only] if args.only else ARGUMENTS:
        importlib.import_module(f"benchmarks.{name}").run(*[getattr(args, argument) for argument in ARGUMENTS[name]])


if __name__ == "__main__":
    main()
