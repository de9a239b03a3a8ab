"""What takes too long for `make test`: `make soak`."""
