"""Compare speed and memory of this package with PyTorch and plain Keras programs.

The programs are `our_program.py`, `plain_keras_program.py`, `torch_program.py` and
`torch_heads.py`. Each runs in its own process (`contenders.py`), so that they don't
share caches or memory.
"""
