"""A small client for a gateway, or any server of the inference protocol. Synchronous, torch-free.

>>> with Client("127.0.0.1:8001") as client:                              # doctest: +SKIP
...     answer = client.infer("signs", images, outputs=["label", "guard_p_value"])
...     answer.outputs["label"], answer.decisions, answer.p_values

Over TLS, known by a certificate or a token:

>>> Client("gateway:8001", ca="ca.pem", cert="me.pem", key="me.key")       # doctest: +SKIP
>>> Client("gateway:8001", ca="ca.pem", token=lambda: path.read_text())    # doctest: +SKIP

Letters: N images, D scores, C H W.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from guard.config.access import is_loopback
from guard.errors import ConfigError, GuardError
from guard.gateway import answers, codec, protocol, tensors
from guard.gateway.codec import Parameter
from guard.gateway.protocol import Message, Method
from guard.gateway.suspectwire import read_verdict
from guard.reviewing import Suspects
from guard.verdict import Decision, Verdict

Array = NDArray[Any]
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class CallError(GuardError):
    """A call failed. `code` is the gRPC status name; `reason` and `info` come from ErrorInfo.

    retry_after: the seconds after which it is worth trying again; None: the server does not say
    """

    def __init__(
        self,
        code: str,
        message: str,
        reason: str,
        info: Mapping[str, str],
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason  # for example "ADVERSARIAL_INPUT"
        self.info = info
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """What came back for N images. Verdict fields are empty or None where none was sent."""

    model: str
    outputs: Mapping[str, Array]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    request_id: str = ""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per image, from the output `guard_decision` or else the response parameter."""
        if "guard_decision" in self.outputs:
            return tuple(Decision(int(value)) for value in self.outputs["guard_decision"])
        names = str(self.parameters.get("guard_decision", ""))
        return tuple(Decision[name] for name in names.split(",") if name)

    @property
    def decision(self) -> Decision:
        """The decision on the only image; ValueError where there is not exactly one."""
        (decision,) = self.decisions
        return decision

    @property
    def suspect_ids(self) -> tuple[str, ...]:
        """One per image, empty where it was not kept; none where none was. For feedback."""
        ids = str(self.parameters.get("guard_suspect_ids", ""))
        return tuple(ids.split(",")) if ids else ()

    @property
    def p_values(self) -> NDArray[np.float32] | None:
        """(N,), where `guard_p_value` was asked for and exposed."""
        return self.outputs.get("guard_p_value")

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """(N, D), where `guard_scores` was asked for and exposed."""
        return self.outputs.get("guard_scores")

    @property
    def pack(self) -> str:
        """Digest of the pack that judged, "" where the gateway does not promote or does not say."""
        return str(self.parameters.get("guard_pack", ""))

    @property
    def substituted(self) -> bool:
        """Whether the robust ensemble answered for at least one image."""
        return bool(self.parameters.get("guard_substituted", False))


class Client:
    """One connection.

    target:            HOST:PORT
    tls:               TLS with the system's authorities; `ca` or `cert` say TLS too
    ca:                PEM file of the authorities to trust instead
    cert, key:         PEM files of our own certificate and private key, for mutual TLS
    token:             a bearer token, or what returns the newest one before each call
    credentials:       instead of these, what `grpc.ssl_channel_credentials` made
    timeout:           seconds a call may take, unless it says otherwise
    metadata:          sent with every call
    patience:          seconds that a call may wait, all in all, to be tried again where the server
                       refused it for now and said when to come back; 0: never tried again
    max_message_bytes: of one message, either way

    Its `suspects` are what a gateway kept: `guard/reviewing.py`.

    ConfigError for a file that cannot be read, or a token that would travel unencrypted.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool = False,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        token: str | Callable[[], str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 30.0,
        metadata: Metadata = (),
        patience: float = 0.0,
        max_message_bytes: int = 64 << 20,
    ) -> None:
        if credentials is None and (tls or ca or cert or key):
            credentials = _credentials(ca, cert, key)
        if token is not None and credentials is None and not is_loopback(target):
            raise ConfigError("token: would cross the network unencrypted: use TLS", key="token")
        options = [
            ("grpc.enable_http_proxy", 0),  # a gateway is called directly, whatever the shell says
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self._channel: grpc.Channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._timeout, self._patience = timeout, patience
        self._metadata = tuple(metadata)
        self._token = token
        methods = {**protocol.INFERENCE_METHODS, **protocol.GUARD_METHODS}
        self._calls = {name: _unary(self._channel, method) for name, method in methods.items()}
        self.suspects = Suspects(self.call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def call(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Message:
        """Any method of either service, message in, message out. CallError when it fails."""
        give_up = time.monotonic() + self._patience
        while True:
            try:
                return self._calls[method](
                    request,
                    timeout=self._timeout if timeout is None else timeout,
                    metadata=(*self._metadata, *self._bearer(), *metadata),
                )
            except grpc.RpcError as error:
                failed = _call_error(error)
                wait = failed.retry_after
                if wait is None or time.monotonic() + wait > give_up:
                    raise failed from error
                time.sleep(wait)

    def _bearer(self) -> Metadata:
        if self._token is None:
            return ()
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", f"Bearer {token.strip()}"),)

    def infer(
        self,
        model: str,
        inputs: Array | Sequence[bytes] | Mapping[str, Array | Sequence[bytes]],
        *,
        tensor: str = "images",
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        model_version: str = "",
        raw: bool = True,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Answer:
        """Ask a model.

        inputs:  an array or encoded pictures for the input `tensor`, or several inputs by name
        outputs: those wanted, empty for all; `guard_*` outputs come only when named
        raw:     the form of contents to send; False: typed fields
        """
        request = protocol.ModelInferRequest(
            model_name=model, model_version=model_version, id=request_id
        )
        for name, value in (inputs if isinstance(inputs, Mapping) else {tensor: inputs}).items():
            _add_input(request, name, value, raw=raw)
        for name in outputs:
            request.outputs.add(name=name)
        codec.set_parameters(request, parameters or {})
        response = self.call("ModelInfer", request, timeout=timeout, metadata=metadata)
        return read_answer(response)

    def live(self) -> bool:
        """Whether the server's process is up."""
        return bool(self.call("ServerLive", protocol.ServerLiveRequest()).live)

    def ready(self, model: str = "") -> bool:
        """Whether a model, or without a name the whole server, can answer."""
        if model:
            return bool(self.call("ModelReady", protocol.ModelReadyRequest(name=model)).ready)
        return bool(self.call("ServerReady", protocol.ServerReadyRequest()).ready)

    def server_metadata(self) -> Message:
        """ServerMetadataResponse: name, version, extensions."""
        return self.call("ServerMetadata", protocol.ServerMetadataRequest())

    def model_metadata(self, model: str) -> Message:
        """ModelMetadataResponse: platform, inputs and outputs (name, datatype, shape)."""
        return self.call("ModelMetadata", protocol.ModelMetadataRequest(name=model))

    def status(self, model: str = "") -> Message:
        """guard.v1.StatusResponse: models, packs, posture and counts. Only from a gateway."""
        return self.call("Status", protocol.StatusRequest(model_name=model))

    def inspect(self, model: str, images: Array, upstream: Array | None = None) -> list[Verdict]:
        """The verdicts in full, without asking an upstream. Only from a gateway.

        images:   as the model's clients send them
        upstream: the production model's probabilities [N, K] or labels [N], if they are known
        """
        request = protocol.InspectRequest(model_name=model, images=codec.pack_tensor(images))
        if upstream is not None:
            request.upstream.CopyFrom(codec.pack_tensor(upstream))
        return [read_verdict(message) for message in self.call("Inspect", request).verdicts]


def _credentials(
    ca: str | Path | None, cert: str | Path | None, key: str | Path | None
) -> grpc.ChannelCredentials:
    if bool(cert) != bool(key):
        raise ConfigError("cert and key go together", key="cert")
    parts = {}
    for name, path in {"ca": ca, "key": key, "cert": cert}.items():
        try:
            parts[name] = Path(path).read_bytes() if path else None
        except OSError as error:
            raise ConfigError(f"{name}: {path}: {error.strerror}", key=name) from error
    return grpc.ssl_channel_credentials(parts["ca"], parts["key"], parts["cert"])


def _unary(channel: grpc.Channel, method: Method) -> Any:
    return protocol.unary_call(channel, method)


def _add_input(request: Message, name: str, value: Array | Sequence[bytes], *, raw: bool) -> None:
    array = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
    datatype = tensors.datatype_of(array)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    if raw:
        request.raw_input_contents.append(tensors.to_raw(array, datatype))
    else:
        tensors.to_typed(tensor.contents, array, datatype, name)


def read_answer(response: Message) -> Answer:
    """A ModelInferResponse as an Answer."""
    answers.check_response(response)
    names = [output.name for output in response.outputs]
    return Answer(
        model=response.model_name,
        outputs={name: answers.read_output(response, name) for name in names},
        parameters=codec.get_parameters(response),
        request_id=response.id,
    )


def _call_error(error: Any) -> CallError:
    info = wait = None
    for key, value in error.trailing_metadata() or ():
        if key == protocol.STATUS_DETAILS:
            info, wait = protocol.error_info(value), protocol.retry_after(value)
    reason, details = (info.reason, dict(info.metadata)) if info is not None else ("", {})
    return CallError(error.code().name, error.details() or "", reason, details, wait)
