"""The benchmark: the proxy beside other gateways on one machine, in twelve rows. `scripts/bench` runs it."""
