"""The one settings file, `guard.toml`: what may stand in it, what it means, how it is read.

Unknown keys are refused and the message names them. Every setting carries its own description;
`settings()` lists them all, and a test compares that list with the README.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field, structs

from guard.config.access import Identities, ServerTls, access_problems, is_loopback
from guard.config.audit import AuditSettings, audit_at, audit_problems
from guard.config.console import Console, console_at, console_problems
from guard.config.limits import Limits, limits_at, limits_problems
from guard.config.models import Input as Input
from guard.config.models import Model as Model
from guard.config.models import Output as Output
from guard.config.models import Tls as Tls
from guard.config.models import model_problems
from guard.config.release import KeyRelease, release_problems
from guard.config.suspects import Suspects, suspects_at, suspects_problems
from guard.errors import ConfigError
from guard.verdict import Policy

Rpc = Literal["ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex"]


class Gateway(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the gateway listens and how much it takes on."""

    listen: Annotated[str, Meta(description="HOST:PORT of the gRPC service; port 0 picks one")] = (
        "127.0.0.1:8001"
    )
    metrics: Annotated[str, Meta(description="HOST:PORT of `/metrics`; empty: none")] = (
        "127.0.0.1:9100"
    )
    max_in_flight: Annotated[int, Meta(ge=1, description="requests worked on at once")] = 64
    max_batch: Annotated[int, Meta(ge=1, description="images in one run of the defence")] = 64
    max_queue: Annotated[int, Meta(ge=1, description="images that may wait for a run")] = 512
    max_message_bytes: Annotated[
        int, Meta(ge=1024, description="largest message received, from clients and upstreams")
    ] = 64 << 20
    request_timeout: Annotated[
        float, Meta(gt=0, description="seconds a request may take, whatever its own deadline says")
    ] = 30.0
    drain: Annotated[
        float, Meta(ge=0, description="seconds that running requests get at shutdown")
    ] = 10.0
    max_connection_age: Annotated[
        float, Meta(gt=0, description="seconds after which a connection is closed gracefully")
    ] = 3600.0
    reflection: Annotated[bool, Meta(description="answer gRPC reflection")] = False
    insecure: Annotated[
        bool,
        Meta(description="listen beyond this machine without asking who calls, or without TLS"),
    ] = False
    tls: Annotated[ServerTls, Meta(description="certificates of our own ports")] = ServerTls()
    identity: Annotated[Identities, Meta(description="who may do what")] = Identities()
    audit: Annotated[AuditSettings, Meta(description="the audit log")] = AuditSettings()
    key_release: Annotated[KeyRelease, Meta(description="keys from a command")] = KeyRelease()
    limits: Annotated[Limits, Meta(description="how much a caller may ask")] = Limits()
    secret_file: Annotated[
        str,
        Meta(
            description="file with this deployment's secret (32 bytes or more) that keys the noise"
        ),
    ] = ""
    trust: Annotated[
        list[str],
        Meta(
            description="PEM files of public keys or authorities whose signatures on packs count;"
            " empty: those in `$GUARD_HOME/trust`"
        ),
    ] = []
    packs: Annotated[
        str, Meta(description="folder of packs that may be promoted; empty: none may")
    ] = ""
    state: Annotated[
        str, Meta(description="folder that says which pack was promoted; goes with `packs`")
    ] = ""
    passthrough: Annotated[
        str,
        Meta(description="`grpc://HOST:PORT` that gets what names no model here; empty: refused"),
    ] = ""
    passthrough_tls: Annotated[Tls, Meta(description="certificates for the pass-through")] = Tls()
    passthrough_rpcs: Annotated[
        list[Rpc],
        Meta(
            description="calls of Triton's wider service that are forwarded; all others are refused"
        ),
    ] = []


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole `guard.toml`."""

    models: Annotated[list[Model], Meta(min_length=1, description="the guarded models")]
    gateway: Annotated[Gateway, Meta(description="the gateway itself")] = field(
        default_factory=Gateway
    )
    suspects: Annotated[Suspects, Meta(description="what is kept of suspicious images")] = (
        Suspects()
    )
    console: Annotated[Console, Meta(description="where people review them")] = Console()

    def policy(self, model: Model) -> Policy:
        """The policy of one of these models; `full` exposure is a default only on loopback."""
        return Policy(
            mode=model.mode,
            on_flag=model.on_flag,
            on_error=model.on_error,
            max_false_positive_rate=model.max_false_positive_rate,
            expose=model.expose or ("full" if is_loopback(self.gateway.listen) else "decision"),
        )


def load_config(path: str | Path) -> Config:
    """Read and check one settings file; relative paths in it start from its own folder.

    Raises `ConfigError`, whose text names the file and the key.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    try:
        config = msgspec.toml.decode(text, type=Config)
    except msgspec.ValidationError as error:
        key, message = _where(str(error))
        raise ConfigError(f"{path}: {key}: {message}", key=key) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    return _checked(_resolved(config, path.parent), str(path))


def single_pack_config(
    pack: str | Path,
    *,
    listen: str = "127.0.0.1:8001",
    metrics: str = "127.0.0.1:9100",
    max_false_positive_rate: float = 0.01,
    insecure: bool = False,
) -> Config:
    """The settings of `guard serve --pack`: the pack's own ensemble answers, verdicts are shown."""
    pack = Path(pack)
    model = Model(
        name=pack.resolve().name,
        pack=str(pack),
        answer="ensemble",
        max_false_positive_rate=max_false_positive_rate,
    )
    gateway = Gateway(listen=listen, metrics=metrics, insecure=insecure)
    return _checked(Config(models=[model], gateway=gateway), "guard serve")


def split_address(address: str, *, key: str) -> tuple[str, int]:
    """`HOST:PORT` as host and port; `[::1]:80` for IPv6.

    Raises `ConfigError` that names `key`.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{key}: {address!r} is not HOST:PORT", key=key)
    return host, int(port)


def settings() -> Iterator[tuple[str, Any, str]]:
    """Every setting there is: dotted key, default (`msgspec.NODEFAULT`: required), description."""
    yield from _settings("gateway", Gateway)
    yield from _settings("models", Model)
    yield from _settings("suspects", Suspects)
    yield from _settings("console", Console)


def canonical(config: Config) -> bytes:
    """The settings as bytes that are the same for the same settings; file names, no contents."""
    return msgspec.json.encode(config, order="sorted")


def _settings(prefix: str, struct: type[Struct]) -> Iterator[tuple[str, Any, str]]:
    hints = get_type_hints(struct, include_extras=True)
    for item in structs.fields(struct):
        inner, *notes = get_args(hints[item.name])
        key = f"{prefix}.{item.name}"
        rows = get_args(inner)[0] if get_origin(inner) is list else None
        if isinstance(inner, type) and issubclass(inner, Struct):
            yield from _settings(key, inner)
            continue
        if isinstance(rows, type) and issubclass(rows, Struct):
            yield from _settings(key, rows)
            continue
        default = item.default
        if item.default_factory is not msgspec.NODEFAULT:
            default = item.default_factory()
        yield key, default, next(note.description for note in notes if note.description)


def _where(message: str) -> tuple[str, str]:
    """The dotted key and the plain complaint in one of msgspec's messages."""
    text, _, place = message.partition(" - at `")
    key = place.rstrip("`").removeprefix("$").lstrip(".")
    for prefix in ("Object contains unknown field ", "Object missing required field "):
        if text.startswith(prefix):
            name = text.removeprefix(prefix).strip("`")
            complaint = "unknown setting" if "unknown" in prefix else "must be set"
            return f"{key}.{name}".lstrip("."), complaint
    return key or "guard.toml", text


def _resolved(config: Config, base: Path) -> Config:
    """The same settings with every relative path made relative to `base`."""

    def at(path: str) -> str:
        return str(base / path) if path else path

    def tls(value: Tls) -> Tls:
        return Tls(ca=at(value.ca), cert=at(value.cert), key=at(value.key))

    def model(value: Model) -> Model:
        scheme, colon, rest = value.upstream.partition(":")
        classes = value.output.classes
        return structs.replace(
            value,
            pack=at(value.pack),
            calibration=at(value.calibration),
            tls=tls(value.tls),
            upstream=f"onnx:{at(rest)}" if scheme == "onnx" and colon else value.upstream,
            output=structs.replace(
                value.output, classes=at(classes) if isinstance(classes, str) else classes
            ),
        )

    gateway, own = config.gateway, config.gateway.tls
    tokens = gateway.identity.tokens
    gateway = structs.replace(
        gateway,
        audit=audit_at(gateway.audit, at),
        limits=limits_at(gateway.limits, at),
        secret_file=at(gateway.secret_file),
        trust=[at(path) for path in gateway.trust],
        packs=at(gateway.packs),
        state=at(gateway.state),
        passthrough_tls=tls(gateway.passthrough_tls),
        tls=ServerTls(cert=at(own.cert), key=at(own.key), client_ca=at(own.client_ca)),
        identity=structs.replace(
            gateway.identity, tokens=structs.replace(tokens, keys=at(tokens.keys))
        ),
    )
    return structs.replace(
        config,
        gateway=gateway,
        models=[model(value) for value in config.models],
        suspects=suspects_at(config.suspects, at),
        console=console_at(config.console, at),
    )


def _checked(config: Config, source: str) -> Config:
    """The settings, once no two of them contradict each other."""
    gateway = config.gateway
    split_address(gateway.listen, key="gateway.listen")
    if gateway.metrics:
        split_address(gateway.metrics, key="gateway.metrics")
    if config.console.listen:
        split_address(config.console.listen, key="console.listen")
    problems = list(_contradictions(config))
    if problems:
        key, message = problems[0]
        raise ConfigError(f"{source}: {key}: {message}", key=key)
    return config


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    gateway = config.gateway
    if gateway.passthrough and not gateway.passthrough.startswith(("grpc://", "grpcs://")):
        yield "gateway.passthrough", "must be grpc://HOST:PORT or grpcs://HOST:PORT"
    ports = {"gateway.listen": gateway.listen, "gateway.metrics": gateway.metrics}
    if bool(gateway.packs) != bool(gateway.state):
        yield "gateway.packs", "packs and state go together"
    yield from access_problems(gateway.tls, gateway.identity, ports, insecure=gateway.insecure)
    release = gateway.key_release
    yield from release_problems(release, gateway.secret_file, gateway.audit.key_file)
    yield from audit_problems(gateway.audit, released="audit" in release.keys)
    yield from limits_problems(gateway.limits)
    yield from suspects_problems(config.suspects, released="suspects" in release.keys)
    yield from console_problems(
        config.console, config.suspects, gateway.tls,
        tokens=bool(gateway.identity.tokens.keys), insecure=gateway.insecure,
    )  # fmt: skip
    names = [model.name for model in config.models]
    for index, model in enumerate(config.models):
        at = f"models[{index}]"
        if names.index(model.name) != index:
            yield f"{at}.name", f"{model.name!r} is used twice"
        yield from ((f"{at}.{key}", message) for key, message in model_problems(model))
        if model.shadow and not gateway.packs:
            yield f"{at}.shadow", "needs gateway.packs"
        if model.max_request_bytes and model.max_request_bytes > gateway.max_message_bytes:
            yield f"{at}.max_request_bytes", "exceeds gateway.max_message_bytes"
