"""The tests mirror the tree, with one file for the front door, one for all recipes and one for all models."""
