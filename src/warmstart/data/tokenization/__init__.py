"""The pair of tokenizers, training one, and the cache of token ids."""
