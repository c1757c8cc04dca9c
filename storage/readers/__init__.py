"""One module per file format that a stack is read from."""
