"""Plugins: where they are found, how they are configured, and how their instances are called."""
