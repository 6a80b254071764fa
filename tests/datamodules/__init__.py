"""Tests of `datamodules/`, one file for each of its files."""
