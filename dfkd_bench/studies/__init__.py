"""Studies of several runs: tuning, ablations, robustness."""
