"""Names of the programs, as tables show them. A comma separates a variant."""

EAGER, COMPILED = "PyTorch", "PyTorch, torch.compile"
FUSED = "PyTorch, fused Adam"
PLAIN = "plain Keras, fit"
OURS, OURS_XLA = "avsdn_tf", "avsdn_tf, --xla=step"
# Both keep their weights in float32.
EAGER_HALF = "PyTorch, autocast to bfloat16"
OURS_HALF = "avsdn_tf, --precision=mixed_bfloat16"
CLIPS = "clips a second"
