"""Helpers for files, devices, random streams and timing, independent of methods and runs."""
