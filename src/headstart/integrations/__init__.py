"""Other people's frameworks: their models come in as denoisers, plans go out to their samplers.

One framework a module, imported by its name: ``from headstart.integrations.diffusers import from_diffusers``. An
optional library is imported by the function that needs it.
"""

__all__: list[str] = []
