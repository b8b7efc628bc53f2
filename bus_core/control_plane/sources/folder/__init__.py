"""Resources in a folder of manifests: reading, checking, watching them, and keeping their state."""
