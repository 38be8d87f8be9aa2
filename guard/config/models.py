"""Settings of one guarded model, `[[models]]`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from guard.config.drift import Drift
from guard.config.harden import Harden
from guard.config.queries import Queries
from guard.verdict import Expose, Mode, OnError, OnFlag


class Tls(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Certificates for a `grpcs://` upstream."""

    ca: Annotated[
        str, Meta(description="PEM file of the authorities to trust; empty: the system's")
    ] = ""
    cert: Annotated[str, Meta(description="PEM file of our own certificate, for mutual TLS")] = ""
    key: Annotated[str, Meta(description="PEM file of our own private key, for mutual TLS")] = ""


class Input(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How wire tensors become pixels in [0, 1]."""

    tensor: Annotated[str, Meta(description="name of the image tensor")] = "images"
    layout: Annotated[
        Literal["NCHW", "NHWC", "CHW", "HWC"], Meta(description="order of the dimensions")
    ] = "NCHW"
    scale: Annotated[
        float | None,
        Meta(description="wire value that means 1.0; default: 255 for integers, 1 for floats"),
    ] = None
    mean: Annotated[
        list[float], Meta(description="per channel, when wire = (pixel * scale - mean) / std")
    ] = []
    std: Annotated[list[float], Meta(description="per channel, see `mean`")] = []
    resize: Annotated[
        bool, Meta(description="resize images to the pack's size before the defence looks at them")
    ] = False
    encoded: Annotated[bool, Meta(description="the tensor is BYTES: PNG, JPEG or WebP files")] = (
        False
    )


class Output(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the upstream's answer becomes class probabilities."""

    tensor: Annotated[
        str, Meta(description="output that carries the answer; empty: the upstream's first")
    ] = ""
    kind: Annotated[
        Literal["auto", "logits", "probabilities", "label"],
        Meta(description="what its numbers are; auto: by the tensor's type and name"),
    ] = "auto"
    classes: Annotated[
        str | list[str] | dict[str, str],
        Meta(
            description="the upstream's classes: a pack with the same order, a list in the"
            " upstream's order, or a table from the upstream's index to the pack's class;"
            " empty: the order of the guarding pack"
        ),
    ] = ""
    harden: Annotated[Harden, Meta(description="how much an answer tells")] = Harden()


class Model(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One guarded model."""

    name: Annotated[str, Meta(min_length=1, description="name that clients ask for")]
    pack: Annotated[str, Meta(min_length=1, description="folder of the pack that guards it")]
    upstream: Annotated[
        str,
        Meta(description="the classifier: `grpc://HOST:PORT`, `grpcs://HOST:PORT` or `onnx:FILE`"),
    ] = ""
    upstream_model: Annotated[str, Meta(description="its name there; empty: the same name")] = ""
    upstream_timeout: Annotated[
        float, Meta(gt=0, description="seconds that one upstream call may take")
    ] = 10.0
    evidence_timeout: Annotated[
        float, Meta(gt=0, description="seconds to wait for the defence before `on_error` decides")
    ] = 10.0
    tls: Annotated[Tls, Meta(description="certificates for a `grpcs://` upstream")] = Tls()
    answer: Annotated[
        Literal["upstream", "ensemble"],
        Meta(description="who answers: the upstream, or the pack's own robust ensemble"),
    ] = "upstream"
    mode: Annotated[Mode, Meta(description="`monitor` records, `enforce` acts")] = "monitor"
    on_flag: Annotated[OnFlag, Meta(description="what `enforce` does with a suspicious image")] = (
        "annotate"
    )
    on_error: Annotated[
        OnError,
        Meta(description="whether an image passes when the defence itself fails or is late"),
    ] = "block"
    max_false_positive_rate: Annotated[
        float, Meta(gt=0, lt=1, description="share of clean images that may be flagged")
    ] = 0.01
    expose: Annotated[
        Expose | None,
        Meta(
            description="what a client may see of the verdict; default: `full` on loopback,"
            " else `decision`"
        ),
    ] = None
    calibration: Annotated[
        str, Meta(description="file written by `guard calibrate --upstream`; empty: the pack's own")
    ] = ""
    min_serial: Annotated[
        int, Meta(ge=0, description="packs of fewer rounds of learning are refused")
    ] = 0
    shadow: Annotated[
        str, Meta(description="pack of `gateway.packs` that is watched beside the serving one")
    ] = ""
    max_images: Annotated[int, Meta(ge=1, description="images in one request")] = 256
    max_pixels: Annotated[
        int,
        Meta(
            ge=1,
            description="pixels of one picture before it is resized; of a request, four times that",
        ),
    ] = 4096 * 4096
    max_request_bytes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="largest request; default: the gateway's limit"),
    ] = None
    input: Annotated[Input, Meta(description="how wire tensors become pixels")] = Input()
    output: Annotated[Output, Meta(description="how the answer becomes probabilities")] = Output()
    queries: Annotated[Queries, Meta(description="sequences of queries")] = Queries()
    drift: Annotated[Drift, Meta(description="whether traffic is as calibrated")] = Drift()

    def asking(self, upstream: str) -> "Model":
        """The same model in front of another upstream."""
        return structs.replace(self, upstream=upstream)


def model_problems(model: Model) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other: key and complaint."""
    if model.upstream and not model.upstream.startswith(("grpc://", "grpcs://", "onnx:")):
        yield "upstream", "must be grpc://HOST:PORT, grpcs://HOST:PORT or onnx:FILE"
    if model.answer == "upstream" and not model.upstream:
        yield "upstream", 'must be set, or answer = "ensemble"'
    if model.on_flag == "substitute" and model.answer == "ensemble":
        yield "on_flag", '"substitute" needs answer = "upstream": the ensemble answers already'
    if model.tls != Tls() and not model.upstream.startswith("grpcs://"):
        yield "tls", "is only used with a grpcs:// upstream"
    if bool(model.tls.cert) != bool(model.tls.key):
        yield "tls", "cert and key go together"
    if len(model.input.mean) != len(model.input.std):
        yield "input.mean", "mean and std must have one number per channel each"
    if any(value <= 0 for value in model.input.std):
        yield "input.std", "must be positive"
    if model.input.scale is not None and model.input.scale <= 0:
        yield "input.scale", "must be positive"
