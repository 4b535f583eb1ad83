"""Commands of `sanic-proxy` with subcommands of their own."""
