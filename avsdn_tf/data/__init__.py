"""Data sets of `tfds_ave`: what they hold, and batches for training and scoring."""
