"""Figures drawn from records, in one style, sized for a paper's column; one file per kind of figure."""
