"""Groups of runs side by side: what a frame says of them, with intervals, and in words."""
