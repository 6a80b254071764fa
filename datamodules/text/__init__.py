"""Labeled texts, and plain text."""
