"""`laser-interp completion`."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion of commands and options for a shell.

    For example: laser-interp completion bash > ~/.local/share/bash-completion/completions/laser-interp

    Args:
        shell: The shell that shall read it.
    """
    from laser_interp.cli.app import build_app

    print(build_app().generate_completion(shell=shell))
