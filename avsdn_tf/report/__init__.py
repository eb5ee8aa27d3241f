"""Output for people: figures, pages, event files and terminal text."""
