"""Results folders: exported, merged, pruned, verified."""
