"""How fast and how large this package is, beside PyTorch programs of the same networks.

Every program is measured in a process of its own, so that none warms up, slows down or
fills the memory of another. `turns.py` is what such a process runs.
"""
