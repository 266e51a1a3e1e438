"""Methods and add-ons: what is installed, its cards, the digest of its code, a template for a new one."""
