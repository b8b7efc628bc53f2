"""The control plane: the way of a resource through source, monitor and driver; and leadership."""
