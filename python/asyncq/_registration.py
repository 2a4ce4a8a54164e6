"""Registrations of functions in the store: how a processor starts a worker for them."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ._config import Chosen, settings
from ._errors import Error
from ._rpc import DENIED, NOT_FOUND, request

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Literal

    from ._function import Decorated


decorated_as: dict[tuple[str, str], Decorated[..., Any]] = {}
"""The functions of this process by service and name."""

_OWN_ONLY = ("secret", "env_file")
"""What a function cannot do without, and the application's own transaction cannot register."""


class Definition:
    """A function as it is registered."""

    __slots__ = ("command", "env", "name", "policy", "service", "site")

    def __init__(self, service: str, name: str) -> None:
        self.service = service
        self.name = name
        function = decorated_as.get((service, name))
        self.policy = function.policy() if function else {}
        self.command = [_interpreter(), "-m", "asyncq.worker"]
        if settings.threads > 1:
            self.command += ["--threads", str(settings.threads)]
        self.site = os.getcwd()
        extra = _import_folders(self.site)
        self.env = {"PYTHONPATH": os.pathsep.join(extra)} if extra else {}

    def params(self) -> dict[str, Any]:
        """The form of `register` of rpc. If there are no folders to add, the variables stay as they are."""
        params: dict[str, Any] = {name: getattr(self, name) for name in ("service", "name", "command", "site")}
        if self.env:
            params["env"] = self.env
        return {**params, **self.policy, "worker": True}

    def columns(self) -> dict[str, str]:
        """As a row of `asyncq_function`, in which a client sets no policy: the next registration adds it. Raises `Error` for a
        function that would show its secrets, or miss its variables, until then."""
        for member in _OWN_ONLY:
            if self.policy.get(member):
                raise Error(
                    f"`{self.name}` has `{member}`, which your transaction cannot register",
                    f"register it before: `python -m asyncq.register {self.name.rpartition('.')[0]}`",
                )
        return {
            "service": self.service,
            "name": self.name,
            "command": json.dumps(self.command, ensure_ascii=False),
            "site": self.site,
            "env": json.dumps(self.env, ensure_ascii=False),
            "worker": "{}",
        }


def _interpreter() -> str:
    """The interpreter that runs workers: this one, even if it is a part of a server, such as uWSGI."""
    name = os.path.basename(sys.executable or "")
    if name.startswith(("python", "pypy")):
        return sys.executable
    return os.path.join(sys.prefix, "bin", "python3")


def _import_folders(site: str) -> list[str]:
    """The folders of `sys.path` that an interpreter which starts in `site` does not have by itself."""
    import site as libraries

    library = os.path.dirname(os.__file__)
    own = {library, os.path.join(library, "lib-dynload"), *libraries.getsitepackages(), libraries.getusersitepackages()}
    own = {os.path.realpath(folder) for folder in own} | {os.path.realpath(site)}
    found: list[str] = []
    for entry in sys.path:
        folder = os.path.abspath(os.path.join(site, entry))
        if os.path.exists(folder) and os.path.realpath(folder) not in own and folder not in found:
            found.append(folder)
    return found


class Registered:
    """The registration of a function and, the first time, what a person should know about it."""

    __slots__ = ("warning",)

    def __init__(self, warning: str | None = None) -> None:
        self.warning = warning


_known: dict[tuple[Chosen, str, str], Registered] = {}
"""Which functions of this process are registered, in which store."""


def ensure(store: Chosen, service: str, name: str) -> Registered | None:
    """Registers a function, unless this process has done so. Returns None if its service does not exist."""
    known = _known.get((store, service, name))
    if known is not None:
        return known
    definition = Definition(service, name)
    try:
        [outcome] = send([definition], change=False)
        if outcome.get("differs") == ["takes"]:
            # It is the same program in the same folder; only its code has changed.
            outcome = _follow(definition, outcome)
    except Error as error:
        if error.exit_code == NOT_FOUND:
            return None
        raise
    _known[store, service, name] = Registered()
    if outcome["outcome"] != "kept":
        return _known[store, service, name]
    differs = ", ".join(f"`{member}`" for member in outcome.get("differs", ())) or "definition"
    module = name.rpartition(".")[0]
    return Registered(
        f"`{name}` of `{service}` is registered with another {differs}, which stays: "
        f"`python -m asyncq.register {module}` changes it"
    )


def _follow(definition: Definition, outcome: dict[str, Any]) -> dict[str, Any]:
    """Changes the signature of a function. Returns what was done, or `outcome` if that is not allowed."""
    try:
        [changed] = send([definition], change=True)
    except Error as error:
        if error.exit_code != DENIED:
            raise
        return outcome  # it is a hook, so it has to take the arguments of hooks
    return changed


def forget(store: Chosen, service: str, name: str) -> None:
    """Makes the next call of a function register it again."""
    _known.pop((store, service, name), None)


def send(definitions: list[Definition], *, change: bool) -> list[dict[str, Any]]:
    """Registers functions. Returns what was done with each."""
    params = {"functions": [definition.params() for definition in definitions], "change": change}
    outcomes: list[dict[str, Any]] = request("register", json.dumps(params), repeat=True)["functions"]
    return outcomes


def register(*modules: object) -> dict[tuple[str, str], str]:
    """Registers functions for this environment, and changes those that were registered differently: what a deployment does.

    `modules` are modules or their names; without any, it registers all decorated functions that this process has imported.
    The result says of each function, as service and name, whether it was `added`, `changed`, or is the `same`.
    """
    from ._function import Decorated, decorated

    if modules:
        functions: Iterable[Decorated[..., Any]] = [
            function for module in modules for function in _functions_of(_module(module))
        ]
    else:
        functions = [function for function in decorated if function.is_importable()]
    if not functions:
        raise Error("there are no functions to register", "decorate them with `asyncq.function`, or name their modules")
    definitions = {}
    for function in functions:
        function.check_importable()
        definitions[function.service, function.name] = Definition(function.service, function.name)
    outcomes = send(list(definitions.values()), change=True)
    return {key: outcome["outcome"] for key, outcome in zip(definitions, outcomes, strict=True)}


def _module(module: object) -> Any:
    import importlib

    return importlib.import_module(module) if isinstance(module, str) else module


def _functions_of(module: Any) -> list[Any]:
    from ._function import Decorated

    own = [value for value in vars(module).values() if isinstance(value, Decorated)]
    return [function for function in own if function.module == module.__name__]


def define_service(
    name: str,
    *,
    concurrency: int | None = None,
    lane_width: int | None = None,
    rate: str | None = None,
    burst: int | None = None,
    on_error: str | None = None,
    on_success: str | None = None,
    keep: float | timedelta | Literal["forever"] | None = None,
    keep_errors: float | timedelta | Literal["forever"] | None = None,
) -> None:
    """Makes sure that a service exists. What you leave out stays as it is in an existing service.

    `concurrency` is how many of its calls may run at once, and `lane_width` how many of one lane; a new service has 1 of each.
    `rate` limits how often calls start, as in `"10/s"`, with bursts of at most `burst` calls. `on_error` and `on_success` are
    the functions that are called when a job of the service has ended, as in `"events/alert"`. `"none"` takes away a rate or a
    hook. `keep` is for how many seconds, or which timedelta, jobs stay that completed or were cancelled, and `keep_errors` those
    that ended in an error; `"forever"` takes a limit away.
    """
    wanted: dict[str, object] = {"concurrency": concurrency, "lane_width": lane_width, "burst": burst}
    params = {"service": name} | {member: value for member, value in wanted.items() if value is not None}
    texts = {"rate": rate, "on_error": on_error, "on_success": on_success}
    params |= {member: None if text == "none" else text for member, text in texts.items() if text is not None}
    for member, span in (("keep", keep), ("keep_errors", keep_errors)):
        if span is not None:
            params[member] = None if span == "forever" else _kept(member, span)
    request("define", json.dumps(params), repeat=True)


def _kept(member: str, span: object) -> float:
    """For how many seconds jobs are kept."""
    found = span.total_seconds() if hasattr(span, "total_seconds") else span
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise TypeError(f"{member} is a number of seconds, a timedelta or 'forever', not {span!r}")
    return float(found)
