"""Every option of a run: typed, documented and bounded."""
