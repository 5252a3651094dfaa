"""A large model out and back, every reply another one."""
