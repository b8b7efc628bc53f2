"""The driver contract: what a driver implements, and how the host finds, checks and calls it."""
