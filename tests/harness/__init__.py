"""Helpers shared by the Python tests: servers as child processes, certificates, waiting."""
