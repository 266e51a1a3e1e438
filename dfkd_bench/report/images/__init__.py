"""Grids of synthetic images."""
