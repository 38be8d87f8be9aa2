"""Sealed records in any S3 service, for gateways on several machines."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

AT_ONCE = 16  # requests
SPARED = 3600.0  # seconds in which whoever wrote a record has made it known to the index, or died


class ObjectBlobs:
    """See `Blobs`.

    url: s3://BUCKET/PREFIX; timeout: seconds for one answer. Credentials and region come from the
    environment where they are not given. Nobody can be locked out of an S3 service: a record that
    the index does not know is left over once it is `spared` seconds old.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str = "",
        region: str = "",
        credentials_file: str = "",
        timeout: float = 10.0,
        spared: float = SPARED,
    ) -> None:
        self._spared = spared
        options: dict[str, Any] = {"endpoint": endpoint, "region": region}
        if credentials_file:
            key, secret = _credentials(credentials_file)
            options |= {"access_key_id": key, "secret_access_key": secret}
        self._errors: Any = None
        self._store = self._opened(url, timeout, {k: v for k, v in options.items() if v})
        self._pool = ThreadPoolExecutor(AT_ONCE, "suspects-objects")

    def write(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """See `Blobs`."""
        import obstore

        with self._failing("written"):
            done = self._pool.map(lambda blob: obstore.put(self._store, *blob), blobs)
            try:
                list(done)
            except BaseException:
                with contextlib.suppress(Exception):
                    obstore.delete(self._store, [name for name, _ in blobs])
                raise

    def read(self, name: str) -> bytes | None:
        """See `Blobs`."""
        import obstore

        with self._failing("read"):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                return None

    def delete(self, names: Sequence[str]) -> None:
        """See `Blobs`."""
        import obstore

        with self._failing("deleted"):
            if names:
                obstore.delete(self._store, list(names))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See `Blobs`."""
        yield

    @contextlib.contextmanager
    def leftovers(self) -> Iterator[Iterator[str]]:
        """See `Blobs`."""
        yield self._old()

    def close(self) -> None:
        """See `Blobs`."""
        self._pool.shutdown()

    def _old(self) -> Iterator[str]:
        import obstore

        before = datetime.now(UTC) - timedelta(seconds=self._spared)
        with self._failing("listed"):
            for some in obstore.list(self._store):
                yield from (one["path"] for one in some if one["last_modified"] < before)

    def _opened(self, url: str, timeout: float, options: dict[str, Any]) -> "S3Store":
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise StoreError(
                "suspects.objects: needs the package `obstore`: pip install 'guard[scale]'"
            ) from None
        self._errors = (BaseError, OSError)
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        seconds = timedelta(seconds=timeout)
        plain = str(options.get("endpoint", "")).startswith("http://")
        client: Any = {"timeout": seconds, "connect_timeout": seconds, "allow_http": plain}
        with self._failing("opened"):
            return S3Store(
                bucket,
                prefix=prefix or None,
                client_options=client,
                retry_config={"max_retries": 2, "retry_timeout": seconds},
                **options,
            )

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """The service's errors as ours, without what it says: it quotes names and addresses."""
        try:
            yield
        except self._errors as error:
            kind = type(error).__name__
            raise StoreError(f"sealed records could not be {what}: S3: {kind}") from None


def _credentials(path: str) -> tuple[str, str]:
    try:
        key, secret = Path(path).read_text().split()
    except OSError as error:
        message = f"suspects.objects_credentials_file: {path}: {error.strerror}"
        raise StoreError(message) from None
    except ValueError:  # also what is not text
        message = f"suspects.objects_credentials_file: {path}: not an id and a secret, a line each"
        raise StoreError(message) from None
    return key, secret
