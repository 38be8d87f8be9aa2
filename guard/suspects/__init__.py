"""Suspects: what was captured, kept sealed, reviewed."""
