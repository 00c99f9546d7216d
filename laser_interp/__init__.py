"""laser-interp: what does LASER remove from a transformer, and for which facts does that help?

    import laser_interp as li

    model, facts = li.load_model("organism"), li.load_facts("organism")
    laser = li.laser(model, "3.in", rho=0.05)
    scores = li.score(model, facts, {"base": None, "laser": laser, "discarded": laser.discarded()})

All public names are listed in `__init__.pyi`. Each is imported when it is first used, so that `import laser_interp` is
quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
