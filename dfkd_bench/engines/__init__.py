"""Where runs execute. One engine so far: this process, one run after the other."""
