"""The Python call: its functions, the configuration that their arguments mean, and a model given as code."""
