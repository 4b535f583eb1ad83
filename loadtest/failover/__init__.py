"""Sixteen faults of providers, and whether a client behind the proxy gets its answer (scripts/failover)."""
