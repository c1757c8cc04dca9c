"""Networks, losses, the posterior, and the uncertainty that is stated with it."""
