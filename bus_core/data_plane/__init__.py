"""The data plane: the way of an event. Server, receiver, (driver), delivery, dispatch, in this order."""
