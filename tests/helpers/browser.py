"""A headless Chromium for tests, controlled by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip
KEYS = {"Enter": 13, " ": 32, "Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
PATIENCE = 60.0  # time limit in seconds for an answer of the browser


def chromium() -> str | None:
    """The path of the browser on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page. `logged`: its console errors and warnings; `asked`: the addresses of all its requests."""

    def __init__(self, address: str) -> None:
        from websocket import create_connection

        self._socket = create_connection(address, timeout=PATIENCE, suppress_origin=True)
        self._last = 0
        self._loaded = False
        self.logged: list[str] = []
        self.asked: list[str] = []
        self.dialogs: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **given: Any) -> dict[str, Any]:
        """Send a command and return its answer; events that arrive in between are stored."""
        number = self._post(method, **given)
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                answer: dict[str, Any] = message["result"]
                return answer
            if "method" in message:
                self._note(message["method"], message["params"])

    def _post(self, method: str, **given: Any) -> int:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": given}))
        return self._last

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.logged.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif event == "Runtime.exceptionThrown":
            self.logged.append(json.dumps(params["exceptionDetails"])[:800])
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.logged.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            self._post("Page.handleJavaScriptDialog", accept=True)

    def open(self, page: Path | str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Open a file in a window of this size, and wait until it has loaded."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.logged.clear(), self.asked.clear(), self.dialogs.clear()
        self.send("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        end = time.monotonic() + PATIENCE
        while not self._loaded:
            assert time.monotonic() < end, "the page did not load"
            message = json.loads(self._socket.recv())
            if "method" in message:
                self._note(message["method"], message["params"])

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window; widths below 600 emulate a phone with a touch screen."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        got = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def settle(self) -> None:
        """Wait until the effects of an event have been drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done))))")

    def texts(self, selector: str) -> list[str]:
        """The text of every visible element of `selector`."""
        texts: list[str] = self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".filter(e => e.checkVisibility()).map(e => e.textContent)"
        )
        return texts

    def click(self, selector: str) -> None:
        """Click with the mouse on the centre of the first visible element of `selector`."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def hover(self, selector: str) -> None:
        """Move the mouse to the centre of the first visible element of `selector`."""
        x, y = self._middle(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> tuple[float, float]:
        x, y = self.run(
            f"(() => {{ const all = [...document.querySelectorAll({json.dumps(selector)})];"
            "const e = all.find(e => e.checkVisibility());"
            "e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return x, y

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        params = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, 0), "code": {" ": "Space"}.get(key, key)}
        self.send("Input.dispatchKeyEvent", type="keyDown", **params, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **params)
        self.settle()

    def type(self, text: str) -> None:
        """Type text into the focused element."""
        self.send("Input.insertText", text=text)
        self.settle()

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot of the window, or of the whole page."""
        clip: dict[str, Any] = {}
        if whole:
            width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
            clip["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            clip["captureBeyondViewport"] = True
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", **clip)["data"]))

    def close(self) -> None:
        """Close the connection to the page."""
        self._socket.close()


@contextmanager
def browse(folder: Path, flags: Sequence[str] = ()) -> Iterator[Tab]:
    """Start a browser with its profile in `folder`, and yield its page; the browser ends with the context."""
    program = chromium()
    assert program, "no Chromium on this machine"
    stderr = (folder / "stderr").open("w+")
    process = subprocess.Popen(
        [program, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        stderr=stderr, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        tab = Tab(_address(folder / "profile" / "DevToolsActivePort", process))
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
        stderr.close()


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """The WebSocket address of the page; waits until the browser has written its port."""
    from urllib.request import urlopen

    end = time.monotonic() + PATIENCE
    while not (file.is_file() and len(file.read_text().split()) == 2):
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < end, "the browser did not start"
        time.sleep(0.05)
    port = file.read_text().split()[0]
    with urlopen(f"http://127.0.0.1:{port}/json") as answer:
        return str(next(t for t in json.load(answer) if t["type"] == "page")["webSocketDebuggerUrl"])
