"""`python -m sanic_proxy`: the `sanic-proxy` command."""

from sanic_proxy.cli import main

if __name__ == "__main__":
    main()
