"""The metrics of every record, a file each: `METRIC` is what tables, verification and lists know of it.

A file that is added here is a metric of every run from then on; nothing else names it. No file imports torch or numpy
at its top: tables and lists read the declarations, and start without them.
"""
