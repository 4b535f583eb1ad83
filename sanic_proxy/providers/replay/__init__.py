"""The embedded provider that replays captured answers."""
