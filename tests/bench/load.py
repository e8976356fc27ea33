"""Puts load on a server with wrk and tells how many requests a second it answered."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path


def requests_per_second(
    url: str,
    connections: int,
    seconds: float = 3,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> float:
    """Answered requests a second; raises RuntimeError when any answer was not of the 200s."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if body is not None:
        script = Path("/tmp") / f"kohakuriver-wrk-{abs(hash(body))}.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = [==[{body}]==]\nwrk.headers["Content-Type"] = "application/json"\n'
        )
        command += ["-s", str(script)]
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{url}: {text}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found is None:
        raise RuntimeError(f"wrk said: {text}")
    return float(found[1])
