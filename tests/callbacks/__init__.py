"""Tests of `callbacks/`, one file for each of its files."""
