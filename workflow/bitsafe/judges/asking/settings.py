"""What a row of an `llm` judge says: `params` move its verdicts, `endpoint` says where and how fast it is asked."""

import os
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitsafe.errors import UserError
from bitsafe.judges.step import Setting
from bitsafe.matrix.tables import first_error

URL = "OPENAI_BASE_URL"  # the client's own variable, read where a row names no base_url
OPENAI = "https://api.openai.com/v1"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Params(Section):
    """What is asked, and of which model: a change asks again."""

    model: str | None = Field(None, description="the model's name at the endpoint")
    structured: Literal["json_schema", "json_object_schema", "json_object", "prompt"] = Field(
        "json_schema", description="how the server holds a reply to its form; `prompt`: by words alone"
    )
    analysis: bool = Field(True, description="let the judge write two sentences before its verdict")
    clip: int = Field(8000, description="characters of an answer that are shown; the rest is cut, and said to be", ge=1)
    harmful_from: float | None = Field(None, description="the score or value from which an answer is harmful")
    sampling: dict[str, Any] = Field({}, description="more keys of the request: temperature, seed, max_tokens, …")


class Price(Section):
    """Dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    batch: float = Field(0.5, description="share of both in a batch", ge=0)


class Endpoint(Section):
    """Where and how fast: a change asks nothing again."""

    base_url: str | None = Field(None, description=f"null: the variable {URL}, else {OPENAI}")
    api_key_env: str | None = Field("OPENAI_API_KEY", description="variable that holds the key; null: none is needed")
    mode: Literal["online", "batch"] = Field(
        "online", description="`batch`: judge-batch asks, the judge step only reads"
    )
    concurrency: int = Field(8, description="requests in flight", ge=1)
    timeout: float = Field(120, description="seconds that one attempt may take, from first to last byte", gt=0)
    max_retries: int = Field(6, description="the client's own, after 408, 409, 429, 5xx, a hang or a reset", ge=0)
    give_up_after: int = Field(30, description="requests in a row without one completion, before the cell fails", ge=1)
    price: Price | None = None
    dollar_limit: float | None = Field(None, description="dollars that the judge may cost in one run", gt=0)

    def url(self) -> str:
        return self.base_url or os.environ.get(URL) or OPENAI

    def is_loopback(self) -> bool:
        return urlsplit(self.url()).hostname in ("localhost", "127.0.0.1", "::1")

    def key(self, where: str) -> str:
        """The key, or one line that names its variable. It goes to the client and nowhere else."""
        if self.api_key_env is None:
            return "none needed"
        if not os.environ.get(self.api_key_env):
            remedy = "set it, or `api_key_env: null` for a server that needs none"
            raise UserError(f"{where}.api_key_env: the variable {self.api_key_env} is not set: {remedy}")
        return os.environ[self.api_key_env]

    def dollars(self, tokens_in: int, tokens_out: int) -> float:
        if self.price is None:
            return 0.0
        return (tokens_in * self.price.input + tokens_out * self.price.output) / 1e6


UNASKED = {"n", "best_of", "stream"}


def where(setting: Setting) -> str:
    return f"workflow/tables/judges.yaml: {setting.name}"


def read(setting: Setting) -> tuple[Params, Endpoint]:
    """Both halves of a row, or one line about the first key that cannot be."""
    found = []
    for kind, values in ((Params, setting.params), (Endpoint, setting.endpoint)):
        try:
            found.append(kind(**values))
        except ValidationError as error:
            raise UserError(f"{where(setting)}.{kind.__name__.lower()}{first_error(error, kind)}") from None
    params, endpoint = found
    if refused := sorted(UNASKED & set(params.sampling)):
        raise UserError(f"{where(setting)}.params.sampling.{refused[0]}: leave it out: a request has one whole reply")
    if params.model is None:
        raise UserError(f"{where(setting)}.params.model: missing: name the model as the endpoint calls it")
    if endpoint.dollar_limit is not None and endpoint.price is None:
        raise UserError(f"{where(setting)}.endpoint.price: missing, and dollar_limit needs it: {{input: …, output: …}}")
    if endpoint.dollar_limit is not None and longest_reply(params) is None:
        raise UserError(f"{where(setting)}.params.sampling.max_tokens: missing, and dollar_limit needs it")
    return params, endpoint


def longest_reply(params: Params) -> int | None:
    """Tokens that a reply may have, under either of the names that the interface has for it."""
    return params.sampling.get("max_completion_tokens") or params.sampling.get("max_tokens")
