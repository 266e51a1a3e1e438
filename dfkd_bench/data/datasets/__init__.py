"""The datasets of this package, one file each with an object `DATASET`. A new file here adds a dataset."""
