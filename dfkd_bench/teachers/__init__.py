"""Teachers: their registry with SHA-256 and accuracy, training by a recipe, import and verification."""
