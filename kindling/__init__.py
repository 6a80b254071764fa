"""The command line behind `train.py`: parsing, runs, callbacks and messages."""
