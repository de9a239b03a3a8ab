"""What `benchmarks.serving` is made of: a load client (load.cpp), a probe of the machine's noise (noise.cpp), servers
to compare with, requests, and its parts.
"""
