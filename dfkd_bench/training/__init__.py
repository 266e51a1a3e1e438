"""Training of a run: loop, context, snapshots, checkpoints, failures."""
