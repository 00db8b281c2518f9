"""The service: samples of a plan by HTTP, and a page to try it.

``headstart serve PLAN MODEL`` runs it, :func:`application` is it as an ASGI application for any server. It needs
FastAPI, uvicorn, prometheus-client and Jinja2, ``pip install 'headstart[serve]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.extras import require

if TYPE_CHECKING:
    from headstart.serve.app import application, run

__all__ = ["application", "check_libraries", "run"]


def check_libraries() -> None:
    """A MissingExtraError, unless the service can be started."""
    for library in ("fastapi", "uvicorn", "prometheus_client", "jinja2"):
        require(library, "serve", "the service")


def __getattr__(name: str) -> Any:
    if name not in ("application", "run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_libraries()
    from headstart.serve import app

    return getattr(app, name)
