"""Training: settings, tasks, training steps, the loop, and distribution."""
