"""Figures, a page and a terminal table that a person looks at."""
