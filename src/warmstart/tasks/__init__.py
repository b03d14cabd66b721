"""One module for each ``task=`` of run.py, each readable from top to bottom."""
