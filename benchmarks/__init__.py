"""Peers side by side: `python -m benchmarks --data_dir data` measures all of it; README.md here keeps the results."""
