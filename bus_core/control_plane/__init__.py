"""The control plane: the way of a resource. Source, monitor, (driver), in this order, and leadership."""
