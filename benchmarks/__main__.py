"""Measure everything: `python -m benchmarks --data_dir data`."""

import argparse

import torch

from benchmarks import data_path, start_up, training_step
from messages import be_quiet


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data_dir", default="data", help="folder with MNIST; what is missing is downloaded")
    parser.add_argument("--only", choices=["data_path", "training_step", "start_up"], help="one of the tables")
    args = parser.parse_args()
    be_quiet()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.only in (None, "data_path"):
        data_path.run(args.data_dir)
    if args.only in (None, "training_step"):
        training_step.run(args.data_dir)
    if args.only in (None, "start_up"):
        start_up.run()


if __name__ == "__main__":
    main()
