"""Measure everything: `python -m benchmarks --data_dir data`."""

import argparse

import torch

from benchmarks import (
    data_path,
    distillation,
    images,
    language,
    parsing,
    start_up,
    streaming,
    tables,
    text,
    training_step,
    transfer,
)
from kindling.errors import filter_warnings

NAMES = [
    "data_path",
    "training_step",
    "start_up",
    "parsing",
    "streaming",
    "tables",
    "images",
    "transfer",
    "text",
    "language",
    "distillation",
]


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data_dir", default="data", help="folder with MNIST, FashionMNIST, hymenoptera_data, tabular/*.csv and text/*"
    )
    parser.add_argument("--teacher", help="a checkpoint of mnist_conv, which distillation otherwise trains first")
    parser.add_argument("--only", choices=NAMES, help="one of the tables")
    args = parser.parse_args()
    filter_warnings()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.only in (None, "data_path"):
        data_path.run(args.data_dir)
    if args.only in (None, "training_step"):
        training_step.run(args.data_dir)
    if args.only in (None, "start_up"):
        start_up.run()
    if args.only in (None, "parsing"):
        parsing.run()
    if args.only in (None, "streaming"):
        streaming.run()
    if args.only in (None, "tables"):
        tables.run(args.data_dir)
    if args.only in (None, "images"):
        images.run(args.data_dir)
    if args.only in (None, "transfer"):
        transfer.run(args.data_dir)
    if args.only in (None, "text"):
        text.run(args.data_dir)
    if args.only in (None, "language"):
        language.run(args.data_dir)
    if args.only in (None, "distillation"):
        distillation.run(args.data_dir, args.teacher)


if __name__ == "__main__":
    main()
