"""`completion`: what a shell needs to complete resweep's commands, options and sweep ids."""

from __future__ import annotations

import click

from resweep_scheduler.cli.options import command

VARIABLE = "_RESWEEP_COMPLETE"


@command(
    "completion",
    'eval "$(resweep completion bash)"                                    # in ~/.bashrc',
    'eval "$(resweep completion zsh)"                                     # in ~/.zshrc',
    "resweep completion fish > ~/.config/fish/completions/resweep.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell!r}: use bash, zsh or fish.")
    click.echo(kind(context.find_root().command, {}, "resweep", VARIABLE).source())
