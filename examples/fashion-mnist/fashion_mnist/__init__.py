"""Federated Fashion-MNIST with NumPy alone."""
