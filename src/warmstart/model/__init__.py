"""Config, model, sharing, loss and loading of a warm-started encoder-decoder; knows no Hydra, Lightning or data."""
