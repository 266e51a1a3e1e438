"""Time of a method's steps on this machine, and estimates of the cost of a plan."""
