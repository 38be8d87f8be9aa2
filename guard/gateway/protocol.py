"""The messages and services on the wire, without generated code.

Message classes are made at import from `descriptors.binpb` (`python protos/build.py` compiles it)
in a descriptor pool of their own. So they load on protobuf 6 and 7 alike, and in one process with
tritonclient, kserve or mlserver, which all define package `inference` in the default pool.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import resources
from typing import Any, NamedTuple, TypeAlias

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Message: TypeAlias = Any  # a message of the private pool; its fields are in protos/*.proto


class Method(NamedTuple):
    """One unary call: where it lives and what travels."""

    path: str  # "/inference.GRPCInferenceService/ModelInfer"
    request: Message
    response: Message


def _load_pool() -> descriptor_pool.DescriptorPool:
    data = resources.files("guard.gateway").joinpath("descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load_pool()  # hand it to the reflection service


def _message(name: str) -> Message:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def _methods(service: str) -> dict[str, Method]:
    return {
        method.name: Method(
            f"/{service}/{method.name}",
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for method in POOL.FindServiceByName(service).methods
    }


INFERENCE_SERVICE = "inference.GRPCInferenceService"
GUARD_SERVICE = "guard.v1.Guard"
INFERENCE_METHODS: Mapping[str, Method] = _methods(INFERENCE_SERVICE)  # by method name
GUARD_METHODS: Mapping[str, Method] = _methods(GUARD_SERVICE)

# Triton's wider service. What only reads may be forwarded as bytes; a stream carries images and
# may only be forwarded for a model that is not guarded; what loads models, or names memory that
# pixels would travel through unseen, is refused.
FORWARDED_METHODS = ("ModelConfig", "ModelStatistics", "RepositoryIndex")
STREAM_METHODS = ("ModelStreamInfer",)
REFUSED_METHODS = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)

ServerLiveRequest = _message("inference.ServerLiveRequest")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyRequest = _message("inference.ServerReadyRequest")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataRequest = _message("inference.ServerMetadataRequest")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
InferParameter = _message("inference.InferParameter")
InferTensorContents = _message("inference.InferTensorContents")

StatusRequest = _message("guard.v1.StatusRequest")
StatusResponse = _message("guard.v1.StatusResponse")
ModelStatus = _message("guard.v1.ModelStatus")
PackStatus = _message("guard.v1.PackStatus")
InspectRequest = _message("guard.v1.InspectRequest")
InspectResponse = _message("guard.v1.InspectResponse")
Tensor = _message("guard.v1.Tensor")
Verdict = _message("guard.v1.Verdict")
Score = _message("guard.v1.Score")

SuspectFilter = _message("guard.v1.SuspectFilter")
SuspectRow = _message("guard.v1.SuspectRow")
SuspectReview = _message("guard.v1.SuspectReview")
Suspect = _message("guard.v1.Suspect")
ListSuspectsRequest = _message("guard.v1.ListSuspectsRequest")
ListSuspectsResponse = _message("guard.v1.ListSuspectsResponse")
GetSuspectRequest = _message("guard.v1.GetSuspectRequest")
GetSuspectResponse = _message("guard.v1.GetSuspectResponse")
CountSuspectsRequest = _message("guard.v1.CountSuspectsRequest")
CountSuspectsResponse = _message("guard.v1.CountSuspectsResponse")
ClaimSuspectsRequest = _message("guard.v1.ClaimSuspectsRequest")
ClaimSuspectsResponse = _message("guard.v1.ClaimSuspectsResponse")
LabelSuspectsRequest = _message("guard.v1.LabelSuspectsRequest")
LabelSuspectsResponse = _message("guard.v1.LabelSuspectsResponse")
UndoLabelRequest = _message("guard.v1.UndoLabelRequest")
UndoLabelResponse = _message("guard.v1.UndoLabelResponse")
SubmitFeedbackRequest = _message("guard.v1.SubmitFeedbackRequest")
SubmitFeedbackResponse = _message("guard.v1.SubmitFeedbackResponse")
ExportSuspectsRequest = _message("guard.v1.ExportSuspectsRequest")
ExportSuspectsResponse = _message("guard.v1.ExportSuspectsResponse")
ExportedSuspect = _message("guard.v1.ExportedSuspect")
EraseSuspectsRequest = _message("guard.v1.EraseSuspectsRequest")
EraseSuspectsResponse = _message("guard.v1.EraseSuspectsResponse")
RotateSuspectKeysRequest = _message("guard.v1.RotateSuspectKeysRequest")
RotateSuspectKeysResponse = _message("guard.v1.RotateSuspectKeysResponse")

ListPacksRequest = _message("guard.v1.ListPacksRequest")
ListPacksResponse = _message("guard.v1.ListPacksResponse")
PackStanding = _message("guard.v1.PackStanding")
ServingPack = _message("guard.v1.ServingPack")
Candidate = _message("guard.v1.Candidate")
ShadowCount = _message("guard.v1.ShadowCount")
ShadowPackRequest = _message("guard.v1.ShadowPackRequest")
PromotePackRequest = _message("guard.v1.PromotePackRequest")
RollbackPackRequest = _message("guard.v1.RollbackPackRequest")

RichStatus = _message("google.rpc.Status")  # for trailing metadata, key STATUS_DETAILS
ErrorInfo = _message("google.rpc.ErrorInfo")
RetryInfo = _message("google.rpc.RetryInfo")
STATUS_DETAILS = "grpc-status-details-bin"
_TYPE_URL = "type.googleapis.com/"


def rich_status(code: int, message: str, details: Iterable[Message]) -> bytes:
    """The value of trailing metadata STATUS_DETAILS: why a call failed, for a program to read."""
    status = RichStatus(code=code, message=message)
    for detail in details:
        type_url = _TYPE_URL + detail.DESCRIPTOR.full_name
        status.details.add(type_url=type_url, value=detail.SerializeToString())
    return bytes(status.SerializeToString())


def error_info(status_details: bytes) -> Message | None:
    """The ErrorInfo inside a STATUS_DETAILS value, None where there is none."""
    for detail in RichStatus.FromString(status_details).details:
        if detail.type_url == _TYPE_URL + ErrorInfo.DESCRIPTOR.full_name:
            return ErrorInfo.FromString(detail.value)
    return None


def retry_after(status_details: bytes) -> float | None:
    """The seconds in the RetryInfo of a STATUS_DETAILS value, None where there is none."""
    for detail in RichStatus.FromString(status_details).details:
        if detail.type_url == _TYPE_URL + RetryInfo.DESCRIPTOR.full_name:
            delay = RetryInfo.FromString(detail.value).retry_delay
            return float(delay.seconds + delay.nanos / 1e9)
    return None


def service_handler(
    methods: Mapping[str, Method],
    behaviours: Mapping[str, Callable[..., Any]],
    *,
    raw_requests: Collection[str] = (),
) -> grpc.GenericRpcHandler:
    """One service of unary calls for `server.add_generic_rpc_handlers((handler,))`.

    `behaviours[name](request, context)` may be a coroutine function (grpc.aio) or a plain one, and
    must exist for every method. Those named in `raw_requests` receive the request's bytes: grpc
    answers INTERNAL where its own deserialiser fails, `codec.parse` lets the caller know better.
    """
    service = next(iter(methods.values())).path.split("/")[1]
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            behaviours[name],
            request_deserializer=None if name in raw_requests else method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )
        for name, method in methods.items()
    }
    return grpc.method_handlers_generic_handler(service, handlers)


def unary_call(channel: Any, method: Method) -> Callable[..., Any]:
    """The client side of `method` on a `grpc.Channel` or `grpc.aio.Channel`."""
    return channel.unary_unary(  # type: ignore[no-any-return]
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
