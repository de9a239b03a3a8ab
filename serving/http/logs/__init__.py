"""What a server writes down: JSON lines of what happens, and a sample of requests."""
