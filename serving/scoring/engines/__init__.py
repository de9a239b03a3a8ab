"""What computes the dense net: engines, one in a file, and which of them a server takes."""
