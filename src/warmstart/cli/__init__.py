"""The entry point, and what Hydra needs around it."""
