"""Source: a folder of manifests. Reads, checks and watches them, and keeps their state."""
