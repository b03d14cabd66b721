"""Every decoder and every encoder type of the installed transformers, tried: which pairs are sound."""
