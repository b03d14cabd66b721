"""The Python API: fit a pair, use its summaries, and compare two runs, without a command line."""
