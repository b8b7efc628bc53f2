"""Settings: the declaration, the layers that say a value, and the error messages."""
