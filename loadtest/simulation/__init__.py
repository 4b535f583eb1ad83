"""A deterministic simulation of balancing: real routing code, and targets that exist in virtual time only."""
