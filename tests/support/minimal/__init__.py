"""Modules that hide what is installed for the tests alone from the proxies that they start."""
