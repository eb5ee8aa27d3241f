"""The command line: a file a command, and what the commands share.

Commands import whatever needs TensorFlow inside functions: help, and a message about a
wrong word, need not wait for it.
"""
