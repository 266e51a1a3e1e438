"""Records to figures of one style, sized for a paper's column; a file per kind, each a function from data to figure.

`draw.drawings` draws everything that the records allow.
"""
