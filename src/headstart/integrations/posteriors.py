"""The old place of :mod:`headstart.integrations.sbi` and :mod:`headstart.integrations.treeffuser`."""

from __future__ import annotations

from headstart.deprecation import renamed

__all__: list[str] = []

__getattr__ = renamed(
    __name__,
    {
        "from_sbi": "headstart.integrations.sbi:from_sbi",
        "from_treeffuser": "headstart.integrations.treeffuser:from_treeffuser",
    },
)
