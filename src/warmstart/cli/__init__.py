"""The command-line entry point, and the changes to Hydra that it needs."""
