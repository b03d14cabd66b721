"""Summaries to scores: ROUGE, baselines, controls, bootstrap intervals, result.json."""
