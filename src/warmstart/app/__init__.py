"""One module for each task of run.py, the config schema and the errors that a user reads."""
