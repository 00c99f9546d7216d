"""Functions whose keywords are those of a settings object show them, in `help()` and to a notebook's completion."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(settings: type) -> Callable[[F], F]:
    """Let a function that takes `**changes` show the fields of a settings object instead."""

    def decorate(function: F) -> F:
        of: Any = function
        parameters = list(inspect.signature(function).parameters.values())
        own = [parameter for parameter in parameters if parameter.kind != inspect.Parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        added = [_parameter(field) for field in fields(settings) if field.name not in names]
        of.__signature__ = inspect.signature(function).replace(parameters=[*own, *added])
        return function

    return decorate


def _parameter(field: Field[Any]) -> inspect.Parameter:
    default = field.default if field.default is not MISSING else inspect.Parameter.empty
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
