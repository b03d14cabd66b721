"""Loggers of a run: metrics.csv, JSON lines files, Weights & Biases."""
