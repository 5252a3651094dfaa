"""A federation whose result can be calculated by hand."""
