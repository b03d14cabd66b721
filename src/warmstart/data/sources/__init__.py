"""Readers of texts: one for each ``data.kind``."""
