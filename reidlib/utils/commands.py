"""Ctrl-C and SIGTERM end a command with exit codes of their own, in every version of typer."""

import typer.core

STOPPED_CODE, TERMINATED_CODE = 130, 143  # what a shell gives for Ctrl-C and SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM ends work in the way in which Ctrl-C does."""


class Commands(typer.core.TyperGroup):
    """A group of commands that hands on both as exit codes."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            code = TERMINATED_CODE if isinstance(stop, Terminated) else STOPPED_CODE
            raise SystemExit(code) from None
