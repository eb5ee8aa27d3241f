"""Speed and memory of this package beside PyTorch and plain Keras programs.

Every program runs in a process of its own (`contenders.py`), so that none warms up,
slows down or fills the memory of another. The programs are `our_program.py`,
`plain_keras_program.py` and `torch_program.py`.
"""
