"""What a run leaves on disk, and how it is read again: checkpoints, results, settings, locks."""
