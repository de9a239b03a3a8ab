"""The live page and the documents, in a browser where there is one: they draw themselves and ask nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from embtables.serving import wire
from embtables.serving.http.app import App
from embtables.serving.settings import Settings
from tests.serving.conftest import ServerProcess
from tests.serving.scorer_service import ScorerService

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=6000"]


def rendered(url: str, profile: Path) -> str:
    """The document after its scripts ran."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def text_of(document: str, name: str) -> str:
    found = re.search(rf'id="{name}"[^>]*>(.*?)<', document, re.DOTALL)
    assert found is not None, name
    return html.unescape(found[1])


@contextlib.contextmanager
def served(server: ServerProcess, page: str) -> Iterator[str]:
    """An address where this page is, before a server."""

    class Before(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode() if self.path == "/" else httpx.get(server.url + self.path).content
            self._answer(200, "text/html; charset=utf-8" if self.path == "/" else wire.JSON, body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = httpx.post(server.url + self.path, content=body)
            self._answer(answer.status_code, wire.JSON, answer.content)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Before) as before:
        thread = threading.Thread(target=before.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{before.server_address[1]}/"
        before.shutdown()
        thread.join()


@needs_chromium
def test_the_live_page_shows_what_the_server_says(server: ServerProcess, tmp_path: Path) -> None:
    httpx.post(f"{server.url}/v1/score", json={"rows": [{"user": 1, "item": "a", "tags": [], "price": 1.0}]})
    document = rendered(f"{server.url}/", tmp_path)
    assert text_of(document, "version") == "serving-2"
    assert text_of(document, "rows-version") == "rows of serving-3"
    assert 20 <= float(text_of(document, "age").removesuffix(" s")) < 60
    assert text_of(document, "state") == "ready, following"
    assert text_of(document, "rejected") == "serving-4: values"
    assert text_of(document, "why").startswith("table user: a row is not finite (")
    assert text_of(document, "applied") == "applied: 3 versions, 100 rows, 5 tombstones"
    assert "requests refused" in text_of(document, "refused")
    (rows,) = re.findall(r"<tbody>(.*?)</tbody>", document, re.DOTALL)
    assert re.findall(r"<td>([^<]*)</td>", rows)[:6] == ["user", "64", "4.1 KB", "8 \u00d7 fp32", "50", "14 %"]
    assert document.count("<rect") == 60
    request = json.loads(text_of(document, "body"))
    assert request == {"rows": [{"user": 3, "item": "item-4", "tags": [1, 2], "price": 1.5}]}
    assert httpx.post(f"{server.url}/v1/score", json=request).status_code == 200


@needs_chromium
def test_the_form_asks_and_shows_the_answer(server: ServerProcess, tmp_path: Path) -> None:
    page = httpx.get(f"{server.url}/").text
    press = '<script>setTimeout(() => document.getElementById("send").click(), 1500);</script></body>'
    with served(server, page.replace("</body>", press)) as url:
        document = rendered(url, tmp_path)
    assert text_of(document, "took").startswith("200, ")
    answer = json.loads(text_of(document, "answer"))
    assert answer["versions"] == {"dense": "serving-2", "rows": "serving-3"}
    assert 0 < answer["scores"]["label"][0] < 1


@needs_chromium
def test_the_documents_list_every_route_and_type(server: ServerProcess, tmp_path: Path) -> None:
    document = rendered(f"{server.url}/docs", tmp_path)
    for route in ("POST /v1/score", "POST /v1/embed", "POST /v1/retrieve", "GET /v1/model", "GET /metrics"):
        assert f"<code>{route}</code>" in document
    for kind in ("ScoreRequest", "ScoreAnswer", "EmbedRequest", "EmbedAnswer", "ErrorBody", "ModelInfo"):
        assert f'<details id="{kind}">' in document


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_ask_nobody_else(server: ServerProcess, path: str) -> None:
    answer = httpx.get(f"{server.url}{path}")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"(?:src|href)=\"(?!/|data:,)([^\"]*)\"", answer.text) == []
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text


def test_every_answer_of_the_service_is_in_the_openapi_document(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    fields = document["components"]["schemas"]["ModelInfo"]["properties"]
    assert set(fields) == set(wire.ModelInfo.__struct_fields__)
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


class WithoutAVersion(ScorerService):
    """One that has nothing to answer with yet."""

    async def start(self) -> None:
        pass


def test_pages_are_refused_as_all_routes_are(tmp_path: Path) -> None:
    async def ask() -> list[httpx.Response]:
        settings = Settings.read({"source": tmp_path, "log_file": tmp_path / "log"})
        app = App(settings, WithoutAVersion(tmp_path))
        await app.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            headers = {wire.REQUEST_ID: "mine-1"}
            asked = (("GET", "/v1/model"), ("GET", "/nowhere"), ("POST", "/metrics"), ("POST", "/v1/score"))
            found = [await client.request(method, path, headers=headers, json={"rows": [{}]}) for method, path in asked]
        await app.stop()
        return found

    model, unknown, posted, scores = asyncio.run(ask())
    assert [answer.status_code for answer in (model, unknown, posted, scores)] == [503, 404, 405, 503]
    assert [answer.headers[wire.REQUEST_ID] for answer in (model, unknown, posted)] == ["mine-1"] * 3
    assert [answer.json()["request_id"] for answer in (model, unknown, posted)] == ["mine-1"] * 3
    assert model.headers["retry-after"] == scores.headers["retry-after"] == "1"
    assert model.json() == scores.json()
    assert "GET" in posted.headers["allow"]
