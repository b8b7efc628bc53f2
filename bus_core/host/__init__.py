"""The host: decides what a run is, and puts one bus together. The only place where the two planes meet."""
