"""Metrics of a finished student. They run after training, when the method's object no longer exists."""
