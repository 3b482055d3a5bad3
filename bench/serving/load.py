"""Load on an HTTP service, from a process of its own: requests in a closed loop, or at a rate that does not wait for answers.

    python -m bench.serving.load PLAN.json        prints one JSON object: every request's status, start and seconds

PLAN.json: {"host", "port", "path", "bodies": [text, ...], "headers": {}, "seconds", and "connections" (closed loop) or "rate" (open
loop, requests per second, arrivals of a Poisson process)}. In an open loop a request counts from the moment at which it was due,
whatever the service is busy with (no coordinated omission). Keep-alive connections, as many as are wanted at once.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """A request: seconds from the beginning at which it was due, seconds that it took, its status.

    0: it was sent and not answered; -1: nobody listened any more, so it was never sent.
    """

    due: float
    seconds: float
    status: int


class Connections:
    """Keep-alive connections that are free."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, request: bytes) -> int:
        """Send a request; return its status, as `Sent` has it."""
        for fresh in (False, True):  # a connection that was idle may have been closed meanwhile
            try:
                pair = (
                    self.free.pop() if self.free and not fresh else await asyncio.open_connection(self.host, self.port)
                )
                reader, writer = pair
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                lines = head.lower().split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)
                if length is None:
                    while size := int(await reader.readline(), 16):
                        await reader.readexactly(size + 2)
                    await reader.readline()
                else:
                    await reader.readexactly(length)
                if b"connection: close" in lines:
                    writer.close()
                else:
                    self.free.append(pair)
                return status
            except ConnectionRefusedError:
                return -1
            except (OSError, asyncio.IncompleteReadError):
                continue
        return 0


def requests(plan: dict[str, Any]) -> Iterator[bytes]:
    """Yield the plan's requests as bytes, round and round."""
    names = {"host": f"{plan['host']}:{plan['port']}", "content-type": "application/json", **plan.get("headers", {})}
    head = f"POST {plan['path']} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in names.items())
    bodies = [body.encode() for body in plan["bodies"]]
    yield from cycle([f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies])


async def closed(plan: dict[str, Any]) -> list[Sent]:
    """Keep so many requests under way for so many seconds."""
    connections, queue, sent = Connections(plan["host"], plan["port"]), requests(plan), []
    start = time.perf_counter()

    async def client() -> None:
        while (due := time.perf_counter() - start) < plan["seconds"]:
            status = await connections.post(next(queue))
            sent.append(Sent(due, time.perf_counter() - start - due, status))
            if status == -1:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(plan["connections"])))
    return sent


async def opened(plan: dict[str, Any]) -> list[Sent]:
    """Send requests when they are due, whatever became of those before."""
    connections, queue, sent = Connections(plan["host"], plan["port"]), requests(plan), []
    rng = random.Random(plan.get("seed", 0))
    start, due, tasks = time.perf_counter(), 0.0, set()

    async def one(due: float, request: bytes) -> None:
        status = await connections.post(request)
        sent.append(Sent(due, time.perf_counter() - start - due, status))

    while due < plan["seconds"]:
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - start)))
        task = asyncio.create_task(one(due, next(queue)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += rng.expovariate(plan["rate"])
    await asyncio.gather(*tasks)
    return sent


def main() -> None:
    """Run a plan and print what became of its requests."""
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    sent = asyncio.run(closed(plan) if "connections" in plan else opened(plan))
    print(json.dumps({"sent": [[round(s.due, 5), round(s.seconds, 5), s.status] for s in sorted(sent)]}))


if __name__ == "__main__":
    main()
