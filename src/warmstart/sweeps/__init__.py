"""Sweeps and searches: folders of jobs, launchers, Optuna, SLURM scripts."""
