"""The routes, one module per resource."""

from sanic_proxy.routes import (
    admin,
    chat,
    deployments,
    gemini,
    health,
    key_management,
    live,
    messages,
    metrics,
    model_info,
    models,
    pages,
    passthrough,
    responses,
    spend,
    stored_responses,
    ui,
    ui_data,
    usage,
)

BLUEPRINTS = tuple(
    module.blueprint
    for module in (
        chat,
        messages,
        responses,
        stored_responses,
        gemini,
        deployments,
        passthrough,
        models,
        model_info,
        health,
        pages,
        admin,
        key_management,
        metrics,
        usage,
        spend,
        live,
        ui,
        ui_data,
    )
)
