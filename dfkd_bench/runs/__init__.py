"""Runs as data: specification, plan, run file, record."""
