"""A headless Chromium that tests drive by keyboard and mouse, through its DevTools protocol."""

import asyncio
import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from browser import BROWSER, FLAGS

KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Tab": 9}


MIDDLE = """selector => {
  const element = document.querySelector(selector);
  element.scrollIntoView({block: "center"});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""


def drive(address, script, width=1280, height=900):
    """Open an address, run `script(page)` there, and return (its result, the hosts that were asked)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [BROWSER, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return asyncio.run(_drive(_socket(Path(profile), process), address, script, width, height))
        finally:
            process.terminate()
            process.wait(30)


def _socket(profile, process):
    """Where the browser's only page listens."""
    file, limit = profile / "DevToolsActivePort", time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
                pages = [one for one in json.load(answer) if one["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise RuntimeError("the browser did not start")


async def _drive(socket, address, script, width, height):
    import aiohttp  # comes with s3fs

    async with aiohttp.ClientSession() as session, session.ws_connect(socket, max_msg_size=0) as connection:
        page = Page(connection)
        await page.call("Network.enable")
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await page.call("Page.navigate", url=address)
        return await script(page), page.hosts


class Page:
    """An open page."""

    def __init__(self, connection):
        self._connection, self._number, self.hosts = connection, 0, set()

    async def call(self, method, **parameters):
        """Ask the browser for something."""
        self._number += 1
        await self._connection.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = (await self._connection.receive()).json()
            if message.get("method") == "Network.requestWillBeSent":
                self.hosts.add(message["params"]["request"]["url"].split("/")[2])
            if message.get("id") == self._number:
                return message.get("result", {})

    async def value(self, expression):
        """Evaluate JavaScript."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression, seconds=30):
        """Wait until a JavaScript expression is true, and return its value."""
        limit = time.monotonic() + seconds
        while not (value := await self.value(expression)):
            assert time.monotonic() < limit, f"waited for {expression}"
            await asyncio.sleep(0.02)
        return value

    async def type(self, text):
        """Type into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    async def click(self, selector):
        """Click the middle of the first element of a selector with the mouse."""
        box = await self.value(f"({MIDDLE})({json.dumps(selector)})")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
