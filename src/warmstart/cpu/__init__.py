"""The optional fast path for CPUs: attention, dropout, prepacked weights, compiled kernels."""
