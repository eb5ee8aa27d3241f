"""From videos to the features that the networks take: reading, looking, listening."""
