"""What `benchmarks.serving` is made of: a load client (load.cpp), servers to compare with, requests, and its parts."""
