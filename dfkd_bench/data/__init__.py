"""Datasets: the only folder that gives access to real images. Methods do not import it.

`catalog` lists the datasets and their facts, `loading` loads the images. `utils.guard` blocks both `loading` and the
dataset files while a method without the privilege `real_data` runs.
"""
