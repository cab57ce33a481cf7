"""What the starter's pictures are worth: see `python -m benchmarks.quality --help`."""
