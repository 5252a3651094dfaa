"""A ClientApp that does, when told, what no ClientApp should."""
