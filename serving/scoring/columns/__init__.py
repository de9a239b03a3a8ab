"""The columns of a request: what it gives, what they may be, what stands for those that it leaves out."""
