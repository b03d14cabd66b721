"""One page that compares runs: read them (collect), compute rows and differences (compare), render HTML (page)."""
