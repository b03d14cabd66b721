"""Sweeps and searches: job folders, launchers, Optuna, SLURM scripts."""
