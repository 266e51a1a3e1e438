"""The metrics of every record, one file each, which declares a `METRIC`.

To add a metric, add a file: it is found by itself. Files import torch and numpy only inside functions, because tables
and lists read the declarations and must start fast.
"""
