"""Sanic's command imports httpx where it is installed, which takes as long as a fifth of our own modules.

It is installed here for the clients in the tests; an installation of the proxy does without it.
"""

raise ImportError("not installed in a proxy's environment")
