"""How an encoder and a decoder are joined: cross-attention, grafting, initialization, weight sharing, adapters."""
