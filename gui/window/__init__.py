"""What is seen of the steps, in Qt: small parts, a page for each step, the window around them."""
