"""What is measured of a finished student. Harness code only: no method lives while any of this runs."""
