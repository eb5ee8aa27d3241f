"""Figures, pages, event files and terminal output for people to look at."""
