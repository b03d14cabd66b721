"""Test every decoder and encoder type of the installed transformers: which pairs work correctly."""
