"""The command line: one file for each command.

Commands import TensorFlow inside functions: the import takes seconds, and help and
errors about arguments should appear at once.
"""
