"""The magics that ``%load_ext agentnb`` brings: ``%%agent``, ``%runs`` and ``%cancel``, with completion of their arguments."""

from __future__ import annotations

import inspect
import keyword
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from agentnb.engine.interrupts import Deferred
from agentnb.errors import AgentnbError, ConfigError
from agentnb.notebook.arguments import options_of, parse, words
from agentnb.notebook.completion import Arguments
from agentnb.notebook.display import kernel_shell
from agentnb.notebook.handles import RunHandle, live_runs
from agentnb.notebook.kernel_runs import KernelRuns, RunFilter, all_runs, find_runs, sessions
from agentnb.notebook.kinds import OWN, Kind, kind_of, kinds
from agentnb.notebook.session import Session
from agentnb.notebook.waiting import patience, wait_all
from agentnb.states import SessionStatus

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MAGICS = (("cell", "agent"), ("line", "runs"), ("line", "cancel"))
_DEFAULT = "notebook"


class Magics:
    """The magics of one shell, and the sessions that they made."""

    def __init__(self, shell: InteractiveShell) -> None:
        """For this shell; nothing is registered yet."""
        self._shell = shell
        self._sessions: dict[str, Session] = {}
        self._arguments = Arguments(shell.user_ns, shell.user_ns_hidden)

    def register(self) -> None:
        """Make the magics known to the shell, and their arguments to its completer."""
        for kind, name in _MAGICS:
            self._shell.register_magic_function(getattr(self, name), kind, name)
        if self._shell.Completer is not None:
            self._shell.Completer.custom_matchers.append(self._arguments.match)

    def unregister(self) -> None:
        """Take away what `register` brought, and end the sessions in which nothing runs."""
        manager = self._shell.magics_manager
        for kind, name in _MAGICS:
            if getattr(manager.magics[kind].get(name), "__self__", None) is self:
                del manager.magics[kind][name]
                delattr(manager.user_magics, name)
        if self._shell.Completer is not None and self._arguments.match in self._shell.Completer.custom_matchers:
            self._shell.Completer.custom_matchers.remove(self._arguments.match)
        for session in self._sessions.values():
            if all(run.done for run in session.runs):
                session.end()
        self._sessions.clear()

    @no_var_expand
    def agent(self, line: str, cell: str) -> RunHandle | None:
        """Launch the cell as a run: ``%%agent KIND [--option value ...]``. It returns at once, with the run's handle, shown live.

        The cell's text is the prompt or the command, taken as it is: nothing in it is a variable of the notebook. With parameters
        (``--param name=value``, or ``-p``) it is a template, in which ``{{name}}`` stands for the value.

            %%agent claude --model sonnet --tool Read --timeout 5m --as review
            Which of the files in src/ has no tests?

            %%agent shell --name build --retry.max_attempts 3 --limits.max-memory-bytes 2GiB
            make all

            %%agent shell -p name=world --wait
            echo hello {{name}}

            %%agent python my_agent
            what my_agent, a function of this notebook, is called with

        ``--as NAME`` keeps the handle in a variable; ``--wait`` waits for the end of the run (interrupting the kernel cancels it);
        ``--session NAME`` launches in the session of that name, or in the session that is a variable of that name, or else in a new one;
        default: one that is called as the notebook. All other options are those of Session.launch and of the kind's class. Texts
        with blanks are quoted. Flags stand alone; an option that is a list or a mapping is given several times (``--env A=1 --env B=2``)
        or as JSON in single quotes; a part of an option has a dot (``--retry.max-attempts 3``, ``--workspace worktree
        --workspace.ref main``).
        """
        with _told("%%agent"):
            kind, given = self._kind(line)
            rest, values = parse(given, kind.options)
            own = {name: values.pop(name, None) for name in OWN}
            variable = _variable(own["as"])
            target = kind.target(cell, rest, values, self._shell.user_ns)
            launch = partial(self._session(own["session"]).launch, target, **values)
            return self._launched(launch, variable, wait=bool(own["wait"]))

    def _kind(self, line: str) -> tuple[Kind, list[str]]:
        given = words(line)
        if not given or given[0].startswith("-"):
            raise ConfigError(f"say first what is launched: %%agent KIND; it is one of {', '.join(kinds())}")
        return kind_of(given[0]), given[1:]

    def _session(self, name: str | None) -> Session:
        """The session that is meant, live: a variable, one of the kernel's by name, or a new one."""
        variable = self._shell.user_ns.get(name) if name else None
        if isinstance(variable, Session):
            return variable
        wanted = name or notebook_name(self._shell.user_ns)
        known = [s for s in sessions() if s.name == wanted and s.status is SessionStatus.ACTIVE] if name else []
        mine = self._sessions.get(wanted)
        if mine is not None and mine.status is SessionStatus.ACTIVE:
            return mine
        if known:
            return known[-1]
        self._sessions[wanted] = made = Session(wanted)
        return made

    def _launched(self, launch: Callable[[], RunHandle], variable: str | None, *, wait: bool) -> RunHandle | None:
        """The run; at its end with `wait`, and None where it is shown already. An interrupt ends a run that is to be waited for."""
        run = None
        try:
            with Deferred():  # a run that is launched is known here; and Python loses an interrupt that strikes while it imports the views
                run = launch()
                if variable:
                    self._shell.user_ns[variable] = run
                shown = wait and kernel_shell() is not None
                if shown:
                    run._ipython_display_()
            if wait:
                run.wait()
        except KeyboardInterrupt:
            if wait and run is not None and not run.done:  # it came before the waiting began
                run.cancel("interrupted by the user")
                live = live_runs([run])
                with suppress(TimeoutError):
                    wait_all(live, patience(live), "detach")
            raise
        return None if shown else run

    @no_var_expand
    def runs(self, line: str) -> KernelRuns:
        """Show this kernel's runs, live: ``%runs [RUN ...] [--status STATUS] [--session NAME] [--kind KIND] [--limit N]``.

        A RUN is a name, an id, or eight digits or more of the start or end of an id. ``--status`` may be given several times;
        ``--limit``: the newest N (100). The value is a sequence of handles.

            %runs --status failed
            %runs --session first-look --limit 10
            failed = %runs --status failed --status timeout
        """
        with _told("%runs"):
            rest, values = parse(words(line), options_of(RunFilter))
            known = all_runs()
            return KernelRuns(RunFilter(**values).select(find_runs(rest, known) if rest else known))

    @no_var_expand
    def cancel(self, line: str) -> None:
        """End live runs of this kernel: ``%cancel RUN ...`` or ``%cancel all``; returns at once.

        A RUN is a name (every live run of that name is meant), an id, or eight digits or more of the start or end of an id.

            %cancel build
            %cancel all
        """
        with _told("%cancel"):
            given, _ = parse(words(line), {})
            live = [run for run in all_runs() if not run.done]
            if not given:
                raise ConfigError(f"say which run, or all; live: {', '.join(repr(run.name) for run in live[-5:]) or 'none'}")
            meant = live if given == ["all"] else self._live(given)
        for run in meant:
            run.cancel("cancelled with %cancel")
        told = ", ".join(run.name for run in meant[:5]) + (" ..." if len(meant) > 5 else "")
        sys.stdout.write(f"cancelling {len(meant)} of {len(live)} live runs: {told}\n" if meant else "no run is live\n")

    def _live(self, given: list[str]) -> list[RunHandle]:
        found = find_runs(given, all_runs())
        if not (live := [run for run in found if not run.done]):
            raise ConfigError(f"{', '.join(f'{run.name!r} has ended already: {run.status.value}' for run in found[-3:])}")
        return live


@contextmanager
def _told(magic: str) -> Iterator[None]:
    """Show what is wrong with a line in one line, without a traceback."""
    try:
        yield
    except AgentnbError as bad:
        raise UsageError(f"{magic}: {bad}") from None


def _variable(name: str | None) -> str | None:
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise ConfigError(f"--as {name}: this is no name of a variable")
    return name


def notebook_name(namespace: Mapping[str, Any]) -> str:
    """What the notebook is called, without its folder and ending; "notebook" where the front end does not tell."""
    told = namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    path = Path(str(told))
    return path.stem.strip() if path.suffix == ".ipynb" and path.stem.strip() else _DEFAULT


def _help() -> str:
    """The options of each kind, for ``%%agent?``."""
    launch = set.intersection(*(set(kind.options) for kind in kinds().values()))
    lines = ["", "Kinds, and the options of each:", ""]
    for kind in kinds().values():
        own = [option.shown for name, option in kind.options.items() if name not in launch and "." not in name]
        lines.append(f"    {kind.name}: the cell is its {kind.body}{'; ' if own else ''}{' '.join(own)}")
    shared = next(iter(kinds().values())).options
    told = [option.shown for name, option in shared.items() if name in launch and "." not in name and not option.models]
    parts = [option.shown for name, option in shared.items() if "." in name or (option.models and option.choices)]
    return "\n".join([*lines, "", f"Options of all: {' '.join(told)}", "", f"With parts: {' '.join(parts)}"])


Magics.agent.__doc__ = inspect.cleandoc(Magics.agent.__doc__ or "") + "\n" + _help()


def load(shell: InteractiveShell) -> None:
    """Register the magics in `shell`, in place of those of an earlier load."""
    unload(shell)
    Magics(shell).register()


def unload(shell: InteractiveShell) -> None:
    """Take the magics out of `shell`."""
    magic: Callable[..., Any] | None = shell.magics_manager.magics["cell"].get("agent")
    loaded = getattr(magic, "__self__", None)
    if isinstance(loaded, Magics):
        loaded.unregister()
