"""A run as a value: its specification, plan, run file and record."""
