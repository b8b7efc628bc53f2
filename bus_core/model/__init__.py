"""Model: the terms of all other code. Names, messages, resources, conditions, parameters, errors.

No file here starts a thread, opens a socket or reads a file.
"""
