"""Secrets by reference, and the keys under which stored things are sealed."""
