"""From texts to batches: sources, tokenizer pair, token cache, batching, LightningDataModule."""
