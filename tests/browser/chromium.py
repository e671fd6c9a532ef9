"""A headless Chromium without a network, driven through its pipes (Chrome DevTools Protocol).

Any Chromium or Chrome will do: the program that GENOATTN_CHROMIUM names, or one on the PATH. npm has one that needs no
root: `npm install @sparticuz/chromium`, then

    node -e "import('@sparticuz/chromium').then(m => m.default.executablePath()).then(console.log)"

unpacks it and prints its path.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
SECONDS = 60
"""Time for an answer."""


def find_chromium() -> str | None:
    """The program; None: there is none."""
    return os.environ.get("GENOATTN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """An open page."""

    def __init__(self, commands: int, answers: int):
        self.commands, self.answers, self.buffer, self.number = commands, answers, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait_for(self, event: str) -> None:
        """Wait for an event that has not come yet."""
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Write what is seen as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def requests(self) -> list[str]:
        """Addresses on a network that the page asked for."""
        sent = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("file:", "data:", "blob:"))]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select([self.answers], [], [], SECONDS)[0], "the browser does not answer"
            part = os.read(self.answers, 1 << 20)
            assert part, "the browser ended"
            self.buffer += part
        first, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(first)


@contextmanager
def opened(program: str, file: Path, width: int = 1200, height: int = 900) -> Iterator[Page]:
    """A file in the browser, which has no network, once it is loaded."""
    reads, commands = os.pipe()
    answers, writes = os.pipe()

    def place() -> None:
        """Chromium reads commands from 3 and answers on 4."""
        for number, end in zip((3, 4), [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)], strict=True):
            os.dup2(end, number)

    command = [program, *FLAGS, "about:blank"]
    none = subprocess.DEVNULL
    with subprocess.Popen(command, preexec_fn=place, pass_fds=(3, 4), stdout=none, stderr=none) as process:
        for end in (reads, writes):
            os.close(end)
        try:
            page = Page(commands, answers)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime"):
                page.call(f"{domain}.enable")
            slow = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            page.call("Network.emulateNetworkConditions", offline=True, **slow)
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            page.call("Page.navigate", url=file.absolute().as_uri())
            page.wait_for("Page.loadEventFired")
            yield page
        finally:
            process.kill()
            for end in (commands, answers):
                os.close(end)
