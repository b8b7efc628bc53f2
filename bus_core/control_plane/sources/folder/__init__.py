"""Source: resources in a folder of manifests. Reading, checking, watching them, and keeping their state."""
