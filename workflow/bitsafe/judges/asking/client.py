"""Asking many requests at a time through `openai`, whose own retries do the waiting; every outcome is told.

An outcome is a row for the store, or a reason: `http 500`, `http 200: no completion`, `timeout`, `connection`. A reason
is not kept: the request is asked again when the step runs again.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httpx2
import openai

from bitsafe.errors import UserError
from bitsafe.judges.asking.reply import FILTERED, kept
from bitsafe.judges.asking.requests import Request
from bitsafe.judges.asking.settings import Endpoint

Outcome = dict | str
Worst = Callable[[Request], tuple[int, int]]


class Whole(openai.DefaultAsyncHttpxClient):
    """httpx bounds the wait for each read, so a server that trickles could hold a request for ever; this bounds it all.

    Redirects are not followed: answers and key go to the server that was named.
    """

    def __init__(self, seconds: float, **settings: Any) -> None:
        super().__init__(timeout=seconds, follow_redirects=False, **settings)
        self.seconds = seconds

    async def send(self, request: httpx2.Request, **settings: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(self.seconds):
                return await super().send(request, **settings)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole reply in {self.seconds} s", request=request) from None


def connect(endpoint: Endpoint, where: str) -> openai.AsyncOpenAI:
    """A client whose key comes from the environment; proxies are left out on the way to this machine."""
    http = Whole(endpoint.timeout, trust_env=not endpoint.is_loopback())
    patience = {"timeout": endpoint.timeout, "max_retries": endpoint.max_retries}
    return openai.AsyncOpenAI(api_key=endpoint.key(where), base_url=endpoint.url(), http_client=http, **patience)


async def ask(
    client: openai.AsyncOpenAI, request: Request, endpoint: Endpoint, worst: Worst, where: str, heard: bool = False
) -> Outcome:
    """One request, with the client's retries. UserError when no request to this endpoint can succeed.

    heard: another request had a completion, so a 403 is about this one (a gateway that screens what is sent).
    """
    try:
        raw = await client.chat.completions.with_raw_response.create(**request.body)
    except openai.APITimeoutError:
        return "timeout"
    except openai.APIConnectionError:
        return "connection"
    except openai.APIStatusError as error:
        return refused_by(error, endpoint, where, heard)
    return kept(raw.http_response.content, endpoint, worst(request)) or f"http {raw.status_code}: no completion"


def refused_by(error: openai.APIStatusError, endpoint: Endpoint, where: str, heard: bool) -> Outcome:
    code = 402 if error.code == "insufficient_quota" else error.status_code
    if code in REMEDIES and not (code == 403 and heard):
        raise UserError(f"{where}: {endpoint.url()} answers {code} ({said(error)}): {REMEDIES[code]}") from None
    if error.code == "content_filter":
        return FILTERED
    return f"http {code}"


REMEDIES = {
    401: "mend the key in the variable that `api_key_env` names",
    402: "the account has no credit",
    403: "the key may not use this model or endpoint",
    404: "mend `base_url` (it usually ends in /v1) or `model`",
}


def said(error: openai.APIStatusError) -> str:
    """The server's own words, short and in one line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error.message).split())[:120]


async def ask_all(
    client: openai.AsyncOpenAI,
    requests: Iterable[Request],
    endpoint: Endpoint,
    where: str,
    worst: Worst,
    may_send: Callable[[Request], bool],
    done: Callable[[Request, Outcome], None],
) -> str | None:
    """Ask them all, `concurrency` at a time; `done` hears each outcome at once. Returns why it stopped early, or None.

    It stops where `may_send` says no with nothing in flight, and where `give_up_after` requests in a row brought no
    completion. An error that no request can escape is raised. In each case requests in flight come to their end first.
    """
    left, in_flight, barren, heard, stopped = iter(requests), 0, 0, False, None
    mistakes: list[UserError] = []
    settled = asyncio.Event()

    async def admitted(request: Request) -> bool:
        nonlocal stopped
        while stopped is None and not may_send(request):
            if not in_flight:
                stopped = "dollars"
                break
            settled.clear()  # what is in flight holds its worst case: its bill may leave room
            await settled.wait()
        return stopped is None

    async def work() -> None:
        nonlocal in_flight, barren, heard, stopped
        for request in left:
            if not await admitted(request):
                return
            in_flight += 1
            try:
                outcome = await ask(client, request, endpoint, worst, where, heard)
            except UserError as mistake:
                mistakes.append(mistake)
                outcome = stopped = "mistake"
            in_flight -= 1
            done(request, outcome)
            heard = heard or not isinstance(outcome, str)
            barren = barren + 1 if isinstance(outcome, str) else 0
            if isinstance(outcome, str) and barren >= endpoint.give_up_after and stopped is None:
                stopped = outcome
            settled.set()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(endpoint.concurrency):
                group.create_task(work())
    finally:
        await client.close()
    if mistakes:
        raise mistakes[0]
    return stopped
