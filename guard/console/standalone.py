"""The console as a process of its own, on the store of a gateway: `guard console guard.toml`.

It keeps its own audit log beside the gateway's, in a folder with `-console` at its end: a log has
one writer.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack

from guard.config import Config
from guard.config.audit import audit_beside
from guard.console.serving import KEY, Place, opened
from guard.errors import ConfigError
from guard.gateway import release
from guard.gateway.audit.recorder import open_audit
from guard.gateway.keeping import opener
from guard.gateway.loading import Packs
from guard.gateway.server import authenticator_of, read_secret
from guard.pipeline import Pipeline
from guard.suspects.late import LateStore

BESIDE = "-console"


def serve(config: Config, *, announce: Callable[[str], None] = print) -> None:
    """Answer until SIGINT or SIGTERM. Raises ConfigError, PackError or AuditError before."""
    if not config.console.listen:
        raise ConfigError(f"{KEY}: must be set", key=KEY)
    stop = threading.Event()
    with ExitStack() as stack:
        gateway = config.gateway
        audit = open_audit(
            audit_beside(gateway.audit, BESIDE), release.audit_keys(gateway.key_release)
        )
        stack.callback(audit.close)
        store = LateStore(opener(config))
        stack.callback(store.close)
        place = Place(store, audit, authenticator_of(gateway), _pipelines(config))
        port = stack.enter_context(opened(config, place))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        announce(f"console at {port.url}")
        stop.wait()


def _pipelines(config: Config) -> dict[str, Pipeline]:
    packs, secret = Packs(config), read_secret(config.gateway)
    return {
        model.name: packs.pipeline(model, packs.serving(model), secret) for model in config.models
    }
