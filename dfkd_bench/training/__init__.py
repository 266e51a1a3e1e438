"""How a run is trained: loop, context, evaluation points, checkpoints, failures."""
