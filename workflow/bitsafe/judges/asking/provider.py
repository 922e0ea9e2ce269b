"""Batches at the provider: submitted once, adopted where a kill left one unrecorded, and read when they have ended."""

import json
from typing import Any

import openai

from bitsafe.errors import UserError
from bitsafe.files import write_json
from bitsafe.judges.asking.batches import URL, Part
from bitsafe.judges.asking.client import REMEDIES, said
from bitsafe.judges.asking.ledger import worst_tokens
from bitsafe.judges.asking.reply import FILTERED, kept
from bitsafe.judges.asking.settings import Endpoint, Params

MARK = "bitsafe"  # the key of a batch's metadata that names its part
ENDED = ("completed", "expired", "cancelled", "failed")


def connect(endpoint: Endpoint, where: str) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=not endpoint.is_loopback())
    patience = {"timeout": endpoint.timeout, "max_retries": endpoint.max_retries}
    return openai.OpenAI(api_key=endpoint.key(where), base_url=endpoint.url(), http_client=http, **patience)


def submit(client: openai.OpenAI, part: Part) -> bool:
    """Make the part's batch exist and record it; False if it existed already.

    A kill may fall between the provider's yes and our record, so the provider's list is looked through for the part's
    name before anything is created.
    """
    found = next(
        (batch for batch in client.batches.list(limit=100) if (batch.metadata or {}).get(MARK) == part.name), None
    )
    if found is None:
        with part.file("jsonl").open("rb") as stream:
            uploaded = client.files.create(file=stream, purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id, endpoint=URL, completion_window="24h", metadata={MARK: part.name}
        )
    record(part, found or batch)
    return found is None


def record(part: Part, batch: Any) -> dict[str, Any]:
    files = {"output": batch.output_file_id, "errors": batch.error_file_id}
    counts = batch.request_counts
    told = {"id": batch.id, "status": batch.status, "files": files}
    told |= {"completed": counts.completed, "failed": counts.failed, "total": counts.total} if counts else {}
    write_json(part.file("batch.json"), told)
    return told


def poll(client: openai.OpenAI, part: Part) -> dict[str, Any]:
    return record(part, client.batches.retrieve(part.batch["id"]))


def replies(client: openai.OpenAI, part: Part, endpoint: Endpoint, params: Params) -> dict[str, dict | str]:
    """Of a batch that has ended: a row for the store, or why there is none, for every key of the part."""
    worst = {request.key: worst_tokens(request, params) for request in part.requests()}
    told = part.batch
    outcomes: dict[str, dict | str] = dict.fromkeys(part.owners, f"batch {told['status']}")
    for file in (told["files"]["errors"], told["files"]["output"]):
        for line in client.files.content(file).text.splitlines() if file else ():
            try:
                row = json.loads(line)
                key = row["custom_id"]
            except (ValueError, KeyError, TypeError):
                continue  # its key keeps the batch's own status as the reason
            if key in outcomes:
                outcomes[key] = outcome_of(row, endpoint, worst[key])
    return outcomes


def outcome_of(row: dict[str, Any], endpoint: Endpoint, worst: tuple[int, int]) -> dict | str:
    """One line of an output or error file; worst: tokens in and out at most, where it does not say."""
    response, error = row.get("response") or {}, row.get("error") or {}
    status, body = response.get("status_code"), response.get("body") or {}
    code = error.get("code") or (body.get("error") or {}).get("code")
    if code == "content_filter":
        return FILTERED
    if status == 200:
        share = endpoint.price.batch if endpoint.price else 1.0
        return kept(body, endpoint, worst, share) or "http 200: no completion"
    return f"http {status}" if status else f"batch {code or 'error'}"


def told_plainly(error: openai.APIStatusError, endpoint: Endpoint, where: str) -> UserError:
    remedy = REMEDIES.get(error.status_code, "run the same command again later")
    return UserError(f"{where}: {endpoint.url()} answers {error.status_code} ({said(error)}): {remedy}")
