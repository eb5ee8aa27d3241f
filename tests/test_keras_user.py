"""The first guesses of a Keras user: everything that Keras does with a model works."""
