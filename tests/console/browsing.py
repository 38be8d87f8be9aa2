"""A browser without a screen: cookies, forms, headers as a page of the console would send them."""

import html
import http.client
import re
import ssl
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from tests.console.stock import PASSWORD


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def location(self) -> str:
        """Where it leads."""
        return self.headers.get("location", "")


class Browser:
    """Keeps a connection and its cookies; follows nothing by itself."""

    def __init__(self, url: str, *, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self.origin, host = url, parts.netloc
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, timeout=30, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, timeout=30)
        )
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    def log_in(self, name: str = "ada", password: str = PASSWORD) -> "Browser":
        """Log in, and learn the session's secret from a page."""
        answer = self.post("/login", {"name": name, "password": password})
        assert answer.status == 303, answer.text
        page = self.get("/suspects").text
        self.csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]  # type: ignore[index]
        return self

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page."""
        return self.send("GET", path, headers={"accept": "text/html", **headers})

    def post(self, path: str, fields: dict[str, str | list[str]], **headers: str) -> Answer:
        """Send a form as a page of the console would; a header given as "" is left out."""
        kind = {"content-type": "application/x-www-form-urlencoded", "origin": self.origin}
        body = urlencode({"csrf": self.csrf, **fields} if self.csrf else fields, doseq=True)
        return self.send("POST", path, body.encode(), {"accept": "text/html", **kind, **headers})

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send anything."""
        sent = {name: value for name, value in (headers or {}).items() if value}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._connection.request(method, path, body or None, sent)
        answer = self._connection.getresponse()
        data = answer.read()
        for value in answer.headers.get_all("set-cookie", []):
            name, _, rest = value.partition("=")
            self.cookies[name] = rest.partition(";")[0]
            if not self.cookies[name].strip('"'):
                del self.cookies[name]
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, data)


def said(answer: Answer) -> str:
    """What a page's status line says."""
    found = re.search(r'id="said"[^>]*>(?:<p>(.*?)</p>)?', answer.text, re.S)
    return html.unescape(found[1] or "") if found else ""
