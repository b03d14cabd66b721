"""Configuration, model, loss and loading of a warm-started encoder-decoder; imports no Hydra, Lightning or data."""
