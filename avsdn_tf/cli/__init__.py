"""The command line: one file for each command.

Commands import TensorFlow within functions, so that help and messages about wrong
arguments don't wait for it.
"""
