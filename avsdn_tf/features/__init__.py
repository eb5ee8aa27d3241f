"""Turn videos into features: read them, run the backbones, store the results."""
