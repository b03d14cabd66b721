"""Decoding with a source that all beams share."""
