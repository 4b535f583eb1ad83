"""The routes, one module per resource."""

from sanic_proxy.routes import admin, chat, health, models, pages, passthrough

BLUEPRINTS = tuple(module.blueprint for module in (chat, passthrough, models, health, pages, admin))
