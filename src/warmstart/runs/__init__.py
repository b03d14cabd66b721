"""The files of a run: checkpoints, results, settings and locks, and how they are written and read."""
