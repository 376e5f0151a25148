"""``undistill defend`` and ``undistill serve``: a teacher behind output defences, and behind a URL."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from undistill.blackbox import BlackBox, check_new, is_import_path, is_url, open_folder, save_defended
from undistill.cli.options import OutputDefenceOptions, TaskOptions, Whole
from undistill.errors import InputError, require
from undistill.serve import MAX_IMAGES, Clients, Meter, create_app, read_keys

CONNECTIONS = 128  # at a time; more are told to come later
GRACE = 5  # seconds that requests have to end after Ctrl-C


def defend(
    teacher: str,
    *,
    task: TaskOptions,
    out: Path,
    defences: OutputDefenceOptions | None = None,
    trust_import_path: bool = False,
) -> int:
    """Set output defences around a teacher, and save both in a folder that can be served and audited.

    Parameters
    ----------
    teacher: str
        A checkpoint folder.
    out: Path
        A new folder; its name becomes the teacher's.
    trust_import_path: bool
        Let a checkpoint whose architecture is package.module:callable import and run that code.
    """
    if defences is None or not defences.output_defence:
        raise InputError("no output defence is named; add --output-defence NAME (see: undistill list defences)")
    check_new(out)
    if is_url(teacher) or is_import_path(teacher):
        raise InputError(
            f"{'a URL' if is_url(teacher) else repr(teacher)} is no checkpoint folder, and nothing else can be saved "
            "with its defences; serve it from Python (undistill.serve.create_app)"
        )
    box = defences.around(teacher, task.load(), trust_import_path=trust_import_path)
    assert isinstance(box, BlackBox)
    save_defended(box, out)
    console = Console(soft_wrap=True, highlight=False)
    say_defences(console, box.defences)
    console.print(f"Saved in {out}; to serve it: undistill serve {out}", markup=False)
    return 0


def serve(
    teacher: Path,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    keys: Path | None = None,
    rate: list[str] | None = None,
    rate_store: str = "memory://",
    max_images: Whole = MAX_IMAGES,
    trust_import_path: bool = False,
) -> int:
    """Serve a teacher over HTTP until Ctrl-C. Its URL can be audited in place of a checkpoint.

    Parameters
    ----------
    teacher: Path
        A checkpoint folder, or a folder of `undistill defend` with its output defences.
    name: str
        What clients are told; by default the teacher's, without its defences.
    host: str
        Address to listen at; 0.0.0.0 for all of this machine's.
    port: int
        0 takes a free one.
    keys: Path
        Text file with a line NAME KEY for each client who may ask. By default all who reach the server may.
    rate: list[str]
        How many images each client may ask about, such as 1000/minute; repeat for several, all of which hold.
    rate_store: str
        Where counts are kept: memory:// for this process alone, or redis://HOST:PORT.
    max_images: int
        In one request.
    trust_import_path: bool
        Let a checkpoint whose architecture is package.module:callable import and run that code.
    """
    require("fastapi", "serve")
    uvicorn = require("uvicorn", "serve")
    clients = Clients({}) if keys is None else read_keys(keys)
    meter = Meter(rate or [], rate_store)
    box, classifier = open_folder(teacher, trust_import_path=trust_import_path)
    app = create_app(
        box,
        class_names=classifier.class_names,
        input_shape=classifier.input_shape,
        name=name or box.undefended.name,
        clients=clients,
        meter=meter,
        max_images=max_images,
    )
    with _listen(host, port) as listening:
        # A wildcard is no address to be asked at.
        named = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        _say(box, f"http://{named}:{listening.getsockname()[1]}", clients, meter)
        # What a client says of his address is not believed: he could have a new one for every question.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
        )
        server = uvicorn.Server(config)
        with suppress(KeyboardInterrupt):  # uvicorn has ended what was running, and then says how it was stopped
            server.run(sockets=[listening])
    return 0


def say_defences(console: Console, defences: Sequence[dict[str, Any]]) -> None:
    """A line about each output defence: its settings, and what it learnt."""
    for defence in defences:
        learnt = ", ".join(
            f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
            for name, value in defence["learnt"].items()
        )
        words = f"Served behind {defence['words']}{f': {learnt}' if learnt else ''}."
        console.print(words, style="dim", highlight=False, markup=False)


def _listen(host: str, port: int) -> socket.socket:
    if not host:
        raise InputError("--host is empty; name an address, 0.0.0.0 for all of this machine's")
    if not 0 <= port < 2**16:
        raise InputError(f"--port is {port}, must be 1 to {2**16 - 1}, or 0 for a free one")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host}, port {port} ({error.strerror or error}); choose another --port (0: a free one) "
            "or --host"
        ) from error


def _say(box: BlackBox, url: str, clients: Clients, meter: Meter) -> None:
    """What is served, where, and to whom."""
    around = "".join(f", behind {defence['words']}" for defence in box.defences)
    lines = [
        f"{box.undefended.name}{around}: {box.policy.sentence}.",
        f"Who may ask: {', '.join(clients.names.values()) or 'everybody who reaches this address'}; "
        f"images: {meter.words or 'without a limit'}.",
        f"To audit it: undistill audit {url} --task NAME --out FOLDER",
        f"Serving at {url} (Ctrl-C stops it).",
    ]
    Console(soft_wrap=True, highlight=False).print(*lines, sep="\n", markup=False)
