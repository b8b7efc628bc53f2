"""The data plane: the way of an event through server, receiver, driver, delivery and dispatch."""
