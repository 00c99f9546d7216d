"""`laser-interp models`."""

from dataclasses import asdict

from laser_interp.cli.options import Output


def models(*, output: Output = Output()) -> None:
    """List the models that a short name loads, and the families that are supported.

    For example: laser-interp models
    """
    from laser_interp.facts.shipped import SHIPPED
    from laser_interp.models.families import FAMILIES
    from laser_interp.models.named_models import NAMED_MODELS, packaged_file

    here = {name: packaged_file(named) is not None for name, named in NAMED_MODELS.items()}
    lines = ["By name:"]
    lines += [f"  {name}: a small model trained for this package, shipped with it" for name in SHIPPED]
    for name, named in NAMED_MODELS.items():
        where = "installed" if here[name] else f"not installed: {named.install}; or {named.hub} from the hub"
        lines.append(f"  {name}: {named.about}; {where}")
    lines += ["", "Families, from a folder, a GGUF file or the hub:"]
    lines += [f"  {f.name} ({f.transformers_class}){f': {f.note}' if f.note else ''}" for f in FAMILIES]
    lines += [
        "",
        "Each family was compared, at every layer and matrix, with a transformers model whose weights were edited",
        "independently; docs/models.md has the largest differences.",
    ]
    result = {
        "named": [*({"name": name, "installed": True} for name in SHIPPED)]
        + [{"name": name, "installed": here[name]} | asdict(named) for name, named in NAMED_MODELS.items()],
        "families": [asdict(family) for family in FAMILIES],
    }
    output.say(result, "\n".join(lines))
