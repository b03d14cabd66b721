"""What a run costs: FLOPs, memory and time, predicted before it starts."""
