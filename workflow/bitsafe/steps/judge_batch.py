"""judge-batch: an `llm` judge's requests as batches, at their price and pace; the judge step then finds the replies."""

from collections.abc import Iterator
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.files import write_json
from bitsafe.generate.store import AnswerStore
from bitsafe.judges.asking.batches import Part, plan, waiting
from bitsafe.judges.asking.ledger import Ledger, one_at_a_time, store_path
from bitsafe.judges.asking.requests import Request
from bitsafe.judges.llm import Asking, all_requests
from bitsafe.judges.step import Asked, answered, asked_of
from bitsafe.matrix.run import Run
from bitsafe.steps.judge import benchmarks_of, setting_of

LLM = "bitsafe.judges.llm"


def judge_batch(run: Run, action: str, name: str) -> None:
    """submit, poll or collect; each can be repeated at any time, also after a kill in the middle."""
    if run.judge(name).module != LLM:
        raise UserError(f"{name}: not a judge of {LLM}, so there is nothing to ask in batches")
    import openai

    from bitsafe.judges.asking import provider

    asking = Asking.of(setting_of(run, name))
    with one_at_a_time(run.folder, name), provider.connect(asking.endpoint, asking.where) as client:
        try:
            ACTIONS[action](run, asking, client)
        except openai.APIStatusError as error:
            raise provider.told_plainly(error, asking.endpoint, asking.where) from None
        except openai.APIConnectionError as error:
            raise UserError(f"{asking.where}: {asking.endpoint.url()} cannot be reached ({error})") from None


def submit(run: Run, asking: Asking, client: object) -> None:
    """Plan what no store and no unfinished batch holds, then make every planned batch exist."""
    from bitsafe.judges.asking import provider

    share = asking.endpoint.price.batch if asking.endpoint.price else 1.0
    ledger = Ledger(run.folder, asking.name, asking.endpoint, asking.params, share)
    under_way = [request for part in waiting(run.folder, asking.name) for request in part.requests()]
    known = {*ledger.rows, *(request.key for request in under_way)}
    new = {request.key: (request, store) for request, store in missing(run, asking, known)}
    if not all(map(ledger.may_send, [*under_way, *(request for request, _ in new.values())])):
        raise ledger.limit_reached(len(new))
    plan(run.folder, asking.name, new.values())
    for part in waiting(run.folder, asking.name):
        if part.batch is None:
            made = provider.submit(client, part)
            print(f"{part.name}: {len(part.owners)} requests, {part.batch['id']} {'submitted' if made else 'found'}")
    print(f"{asking.name}: {len(new)} new requests, {len(under_way)} waiting, {len(ledger.rows)} replies kept")


def poll(run: Run, asking: Asking, client: object) -> None:
    from bitsafe.judges.asking import provider

    for part in unfinished(run, asking):
        told = provider.poll(client, part)
        print(f"{part.name}: {told['status']}, {told.get('completed', 0)} of {len(part.owners)} completed")


def collect(run: Run, asking: Asking, client: object) -> None:
    """Store the replies of the batches that have ended; a reply that is stored already changes nothing."""
    from bitsafe.judges.asking import provider

    for part in unfinished(run, asking):
        if provider.poll(client, part)["status"] not in provider.ENDED:
            print(f"{part.name}: {part.batch['status']}, nothing to collect yet")
            continue
        outcomes, failures = provider.replies(client, part, asking.endpoint, asking.params), {}
        by_store: dict[str, list] = {}
        for key, outcome in outcomes.items():
            if isinstance(outcome, str):
                failures[key] = outcome
            else:
                by_store.setdefault(part.owners[key], []).append((key, outcome))
        for store, rows in by_store.items():
            with AnswerStore(run.folder / store) as open_store:
                open_store.add(rows)
        write_json(part.file("done.json"), {"failures": failures})
        print(f"{part.name}: {len(outcomes) - len(failures)} replies stored, {len(failures)} without a completion")


ACTIONS = {"submit": submit, "poll": poll, "collect": collect}


def unfinished(run: Run, asking: Asking) -> list[Part]:
    found = [part for part in waiting(run.folder, asking.name) if part.batch is not None]
    if not found:
        print(f"{asking.name}: no batch is under way in {run.folder}")
    return found


def missing(run: Run, asking: Asking, known: set[str]) -> Iterator[tuple[Request, str]]:
    """Every request of the run whose reply is not known, with the store it belongs to, below the run's folder."""
    for asked in every_file(run, asking.name):
        store = str(store_path(asked.folder, asking.name).relative_to(run.folder))
        for requests in all_requests(asking, answered(asked)):
            yield from ((request, store) for request in requests if request.key not in known)


def every_file(run: Run, name: str) -> Iterator[Asked]:
    """The answers files that this judge is to judge; cells that have not answered yet are left out, and said to be."""
    benchmarks, samples = benchmarks_of(run, name), run.config.generate.samples
    for cell in run.cells:
        if not run.at(cell, "answers.json").exists():
            print(f"{cell}: no answers yet, left out")
            continue
        decodings = run.decodings_of(cell)
        settings = {decoding: run.settings(decoding) for decoding in decodings}
        for replicate in range(run.replicates(cell.model)):
            baseline: Path | None = None
            if run.judge(name).pairwise:
                baseline = run.replicate_folder(cell.baseline, replicate)
            folder = run.replicate_folder(cell, replicate)
            yield from asked_of(folder, benchmarks, decodings, samples, baseline, settings)
