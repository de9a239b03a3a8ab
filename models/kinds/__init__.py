"""Kinds of models: the options of each, and how it is made of them; its network is in `nets/`."""
