"""Export, merge, prune and verify results folders."""
