"""An OpenAI-compatible proxy on Sanic: the model name picks the provider."""

__version__ = "0.1.0"
