"""Tests of `lit_models/`, one file for each of its files."""
