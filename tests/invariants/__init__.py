"""What must be impossible to forget, each proved by forgetting it."""
