"""Receiver: takes events in over HTTP and hands each one to a function."""
