"""The reference row store: plain torch, the oracle of the others."""
