"""The routes, one module per resource."""

from sanic_proxy.routes import admin, chat, health, messages, models, pages, passthrough

BLUEPRINTS = tuple(module.blueprint for module in (chat, messages, passthrough, models, health, pages, admin))
