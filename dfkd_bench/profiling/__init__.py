"""What a method's steps cost here, and what a plan will take."""
