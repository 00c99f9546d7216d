"""laser-interp: what does LASER remove from a transformer, and for which facts does that help?

    import laser_interp as li

    model, facts = li.load_model("organism"), li.load_facts("organism")
    laser = li.laser(model, "3.in", rho=0.05)
    scores = li.score(model, facts, {"base": None, "laser": laser, "discarded": laser.discarded()})

All public names are listed in `__init__.pyi`, or in a group: `li.controls`, `li.counts`, `li.tasks`,
`li.types`; figures are `li.plots.NAME`. Each is imported when it is first used, so that
`import laser_interp` is quick.
"""

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_GROUPS = ("controls", "counts", "tasks", "types")


def __getattr__(name: str) -> object:
    try:
        return _public(name)
    except AttributeError:
        for group in () if name.startswith("_") else (*_GROUPS, "plots"):
            if hasattr(_public(group), name):
                raise AttributeError(f"li.{name} is li.{group}.{name}") from None
        raise
