"""The page while a sweep runs: served on this machine alone, from the folders as they are now."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from genopt.app.dashboard.curves import curves_of
from genopt.app.dashboard.details import details, figures, picture
from genopt.app.dashboard.gather import Gatherer, Study, stamp_of
from genopt.app.dashboard.page import html, plotly_source, short, title_of, words_of
from genopt.app.dashboard.payload import Importances, payload
from genopt.app.dashboard.search import FILE as SEARCH_FILE
from genopt.app.dashboard.search import read_searches
from genopt.app.folder import RUNNING
from genopt.errors import GenoptError

logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# seconds for which what was read still counts as new, and ports that are tried
_FRESH, _PORTS = 2.0, 20


class Snapshot:
    """The studies below folders, read again when somebody asks and some time has passed.

    Args:
        roots: the folders.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self._gatherer = Gatherer()
        self._importances = Importances()
        self._lock = threading.Lock()
        self._read = -_FRESH
        self._studies: dict[str, Study] = {}
        self._data: dict[str, Any] = {}
        self._state: list[Any] | None = None

    def data(self) -> dict[str, Any]:
        """What the page shows, with a ``version`` that changes when something of it does."""
        with self._lock:
            if time.monotonic() - self._read >= _FRESH:
                self._refresh()
            return self._data

    def study(self, key: str) -> Study | None:
        """A study by its id.

        Args:
            key: the id.

        Returns:
            The study as it was last read; None where there is none.
        """
        with self._lock:
            return self._studies.get(key)

    def _refresh(self) -> None:
        studies = self._gatherer.studies(self.roots)
        self._read = time.monotonic()
        # most of the time nothing has happened since the last look
        state = [_state(study) for study in studies]
        state.append([stamp_of(root / SEARCH_FILE) for root in self.roots])
        if state == self._state:
            return
        self._state = state
        searches = read_searches(self.roots)
        data = payload(studies, title_of(self.roots), searches, self._importances)
        data |= words_of(self.roots)
        data["curves"] = short(curves_of(studies))
        version = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
        self._data = {**data, "live": True, "version": version}
        self._studies = {study.id: study for study in studies}


def _state(study: Study) -> list[Any]:
    """What changes when the page of a study does."""
    files = [study.folder / "history.json", study.folder / "metrics.json"]
    if study.state == RUNNING:
        files += sorted(study.folder.glob("csv/version_*/metrics.csv"))
    own = [study.id, study.state, study.problem, study.started, study.error]
    return [*own, *(stamp_of(path) for path in files)]


def serve(roots: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """A server of the live page; the next free port is taken where the wanted one is in use.

    Args:
        roots: folders of studies or of sweeps.
        port: the wanted port; 0 for any.

    Returns:
        The server, which does not answer before it is run.

    Raises:
        GenoptError: if no port is free.
    """
    snapshot, source = Snapshot(roots), plotly_source().encode()

    class Handler(_Handler):
        pages, plotly = snapshot, source

    for wanted in range(port, port + _PORTS if port else 1):
        try:
            server = ThreadingHTTPServer((_HOST, wanted), Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            server.daemon_threads = True
            return server
    raise GenoptError(f"no port from {port} to {port + _PORTS - 1} is free: choose --port")


def watch(roots: Sequence[Path], port: int, browse: bool = False) -> int:
    """Serve the live page until Ctrl-C.

    Args:
        roots: folders of studies or of sweeps.
        port: the wanted port.
        browse: whether to open a browser.

    Returns:
        0.
    """
    from rich.console import Console

    server = serve(roots, port)
    url = f"http://{_HOST}:{server.server_address[1]}/"
    Console().print(f"{url}  follows {title_of(roots)}; Ctrl-C ends", highlight=False)
    if browse:
        import webbrowser

        webbrowser.open(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


class _Handler(BaseHTTPRequestHandler):
    """Answers for the page, its data, one study, one figure and the plotting library."""

    pages: Snapshot
    plotly: bytes
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one request."""
        # a page elsewhere that names this machine differently gets nothing
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in (_HOST, "localhost"):
            self._send(b"", "text/plain", HTTPStatus.FORBIDDEN)
            return
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/") if part]
        try:
            self._answer(parts, parse_qs(url.query))
        except (BrokenPipeError, ConnectionResetError):
            pass
        except (GenoptError, OSError) as error:
            logger.warning("the page could not be made: %s", error)
            self._send(str(error).encode(), "text/plain", HTTPStatus.INTERNAL_SERVER_ERROR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about single requests.

        Args:
            format: of the message.
            *args: of the message.
        """

    def _answer(self, parts: list[str], query: dict[str, list[str]]) -> None:
        match parts:
            case []:
                self._send(html(self.pages.data()).encode(), "text/html; charset=utf-8")
            case ["data.json"]:
                data = self.pages.data()
                same = query.get("since") == [data["version"]]
                self._json({"version": data["version"]} if same else data)
            case ["plotly.js"]:
                self._send(self.plotly, "text/javascript", cache=True)
            case ["study", name] if study := self.pages.study(name.removesuffix(".json")):
                self._json({**details(study), "figures": _pictures(study)})
            case ["figure", key, name] if study := self.pages.study(key):
                found = [path for path in figures(study) if path.name == name]
                if found:
                    self._send(found[0].read_bytes(), "image/png")
                else:
                    self._send(b"", "text/plain", HTTPStatus.NOT_FOUND)
            case _:
                self._send(b"", "text/plain", HTTPStatus.NOT_FOUND)

    def _json(self, data: Any) -> None:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=str)
        self._send(text.encode(), "application/json")

    def _send(
        self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, cache: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=3600" if cache else "no-store")
        self.end_headers()
        self.wfile.write(body)


def _pictures(study: Study) -> list[dict[str, Any]]:
    # the time of writing makes a figure that was drawn anew a new address
    return [
        picture(path, f"figure/{study.id}/{quote(path.name)}?t={path.stat().st_mtime_ns}")
        for path in figures(study)
    ]
