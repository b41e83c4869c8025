"""The rules of the directory, over its ports."""
