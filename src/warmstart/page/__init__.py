"""The page of ``task=demo``: models on a menu, summaries beside baselines, and the source words that each word read."""
