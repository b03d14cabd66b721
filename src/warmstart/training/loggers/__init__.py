"""Where metrics go: metrics.csv, json lines, Weights & Biases."""
