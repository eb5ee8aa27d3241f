"""Open data sets of `tfds_ave`, and read batches for training and scoring."""
