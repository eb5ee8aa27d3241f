"""The published numbers, and the runner that puts ours beside them."""
