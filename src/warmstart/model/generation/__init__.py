"""Generation: beam search, logits processors, and KV caches that the beams of a source share."""
