"""`laser-interp completion`."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script with which a shell completes commands and options.

    For example: laser-interp completion bash > ~/.local/share/bash-completion/completions/laser-interp

    Args:
        shell: The shell that will read the script.
    """
    from laser_interp.cli.app import build_app

    print(build_app().generate_completion(shell=shell))
