"""Several devices: sharding, and ranks that differ, die or hang."""
