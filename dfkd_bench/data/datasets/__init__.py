"""The datasets of this package: one file for each, with an object `DATASET`. A new file here is a new dataset."""
