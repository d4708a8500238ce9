"""A headless Chromium for tests of pages: it opens files, evaluates scripts, and is pressed keys.

It is driven over a pair of pipes by the Chrome DevTools Protocol (--remote-debugging-pipe: JSON, each message ended by a
NUL, read from file descriptor 3 and written to 4), so that no other package is needed.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--remote-debugging-pipe")  # fmt: skip
PATIENCE = 120  # seconds that an answer may take
ERRORS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "ArrowDown": (40, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "Escape": (27, ""),
}  # code, and what it types


class Browser:
    """One page in a process of its own. errors: what the open page has thrown or written to the console.

    Raises RuntimeError where the browser answers with an error, ends, or takes longer than `PATIENCE`.
    """

    def __init__(self, profile: Path):
        """profile: an empty folder for the browser's own files."""
        reads, self.writer = map(_high, os.pipe())
        self.reader, writes = map(_high, os.pipe())
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        shell = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*shell, *map(str, command)], pass_fds=(reads, writes), **quiet)
        os.close(reads)
        os.close(writes)
        self.held, self.sent, self.session, self.errors = b"", 0, "", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.reader)
        os.close(self.writer)

    def call(self, method: str, **parameters: Any) -> dict:
        """The answer to a method of the protocol."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        os.write(
            self.writer, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        while (answer := self._message()).get("id") != self.sent:
            if answer.get("method") in ERRORS:
                self.errors.append(json.dumps(answer["params"]))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _message(self) -> dict:
        while b"\0" not in self.held:
            if not select.select([self.reader], [], [], PATIENCE)[0] or not (more := os.read(self.reader, 1 << 20)):
                raise RuntimeError("the browser says nothing more")
            self.held += more
        message, _, self.held = self.held.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, width: int = 1280, height: int = 900) -> None:
        """Opens a page and waits until it is loaded. width: of the window in CSS pixels; below 500 as on a telephone."""
        small = width < 500
        size = {"width": width, "height": height, "deviceScaleFactor": 1 + small, "mobile": small}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.errors.clear()
        self.call("Page.navigate", url=Path(file).absolute().as_uri())
        self.value(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
        )

    def value(self, script: str) -> Any:
        """What an expression of the page is, or comes to be if it is a promise, as JSON."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and releases a key: one of `KEYS`, or a character."""
        code, types = KEYS.get(key, (ord(key[0].upper()), key))
        event = {"key": key, "code": key if key in KEYS else "", "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if types else "rawKeyDown", text=types, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)


def _high(descriptor: int) -> int:
    """The same file under a number from 10 on, which is neither 3 nor 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
