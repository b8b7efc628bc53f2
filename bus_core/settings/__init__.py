"""Settings: where each comes from, and what is said about a wrong one."""
