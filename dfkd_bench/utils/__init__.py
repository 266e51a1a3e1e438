"""Files, devices, random streams, time: what knows nothing of methods or runs."""
