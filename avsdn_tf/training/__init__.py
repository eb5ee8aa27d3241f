"""Training: what is learnt, one step of it, and the loop around the steps."""
