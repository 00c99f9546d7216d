"""Optional libraries: if one is missing, the error names it and the command that installs it."""

from importlib.util import find_spec


def require(extra: str, *modules: str, what: str) -> None:
    """Refuse where a library of an extra is not installed.

    Args:
        extra: name of the extra, as in `pip install 'laser-interp[page]'`.
        modules: the modules to look for.
        what: what needs them; the error message begins with it.

    Raises:
        ModuleNotFoundError: a module is missing.

    Example:
        >>> require("page", "plotly", what="the report")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(f"{what} needs {' and '.join(missing)}: pip install 'laser-interp[{extra}]'")
