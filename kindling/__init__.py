"""What stands behind the doors: the command line, runs, callbacks and messages."""
