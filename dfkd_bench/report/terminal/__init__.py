"""Tables printed by commands."""
