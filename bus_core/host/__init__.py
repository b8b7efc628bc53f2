"""The host: chooses the bus and the driver of a run, and connects the parts. Only here the two planes meet."""
