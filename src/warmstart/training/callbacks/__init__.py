"""Lightning callbacks of a fit: checkpoints, graceful shutdown, unfreezing."""
