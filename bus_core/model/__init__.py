"""The model: the words that everything else is said in. Names, messages, resources, conditions, parameters, errors.

No file here starts a thread, opens a socket or reads a file.
"""
