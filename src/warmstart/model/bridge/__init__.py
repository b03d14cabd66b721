"""How encoder and decoder are joined: cross-attention, grafting, initialization, tying, adapters."""
