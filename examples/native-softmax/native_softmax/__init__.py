"""The server's side of a federation whose sites train in C++."""
