"""Plug-ins: find and load them, their cards, the digest of their code, a template for a new method."""
