"""Functions whose keywords are those of a settings object show them, in `help()` and to a notebook's completion."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(settings: type) -> Callable[[F], F]:
    """Let a function that takes `**changes` show the fields of a settings object that have defaults instead."""

    def decorate(function: F) -> F:
        of: Any = function
        parameters = list(inspect.signature(function).parameters.values())
        own = [parameter for parameter in parameters if parameter.kind != inspect.Parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        added = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for field in fields(settings)
            if field.name not in names and field.default is not MISSING
        ]
        of.__signature__ = inspect.signature(function).replace(parameters=[*own, *added])
        return function

    return decorate
