"""Texts: labeled ones, and running text."""
