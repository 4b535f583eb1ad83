"""Compares the ledger with the bill of a provider, while workers are killed and streams are cut."""
