"""Where batches lie, what is in them, and how their columns become the fields of an event."""
