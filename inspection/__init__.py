"""What the product sees in a file: the first question when something is not as expected."""
