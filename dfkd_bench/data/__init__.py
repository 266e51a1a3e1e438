"""Datasets. The one room of the house where real images are reachable; methods never enter it.

`catalog` holds facts that everybody may know, `door` loads the images, `guard` keeps the door shut while a method
without the privilege lives.
"""
