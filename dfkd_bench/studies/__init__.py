"""Studies made of several runs: tuning, ablations, robustness."""
