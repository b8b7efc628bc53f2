"""The place of the Kafka driver. It holds no driver yet, and registers none."""
