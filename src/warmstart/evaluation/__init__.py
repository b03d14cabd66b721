"""From summaries to scores: ROUGE, baselines, controls, bootstrap intervals."""
