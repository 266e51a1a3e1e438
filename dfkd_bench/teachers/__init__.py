"""Teachers: a registry with SHA-256 and accuracy, the recipe that trains one, import and verification."""
