"""Settings: the declaration, the layers that set values, and the error messages."""
