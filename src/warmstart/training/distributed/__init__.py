"""Training on several devices: sharding, and detection of ranks that differ, die or hang."""
