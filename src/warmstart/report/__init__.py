"""One page that compares runs: what was found (collect), what it means (compare), how it is shown (page)."""
