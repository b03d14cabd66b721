"""All options of a run, with types, documentation and bounds."""
