"""`laser-interp completion`."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion of commands and options for a shell.

    Args:
        shell: The shell that shall read it.
    """
    from laser_interp.cli.app import build_app

    print(build_app().generate_completion(shell=shell))
