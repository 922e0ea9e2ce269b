"""What the tables and the configuration say about sizes: of a model, and of a job where the user knows better."""

from pydantic import BaseModel, ConfigDict, Field


class Architecture(BaseModel):
    """The size of a model, as its checkpoint's config.json has it: known before the checkpoint is here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: int = Field(description="weights, embeddings included, a tied head once", gt=0)
    layers: int = Field(description="num_hidden_layers", gt=0)
    hidden_size: int = Field(description="hidden_size", gt=0)
    kv_width: int = Field(description="num_key_value_heads × head_dim", gt=0)
    vocabulary: int = Field(description="vocab_size", gt=0)


class Demand(BaseModel):
    """What a job asks for, where it is not to be computed; grows by attempt like what is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mem_mb: int | None = Field(None, description="megabytes of the machine's memory", gt=0)
    runtime: int | None = Field(None, description="minutes", gt=0)
    gpu: int | None = Field(None, description="GPUs", ge=0)
    cpus_per_task: int | None = Field(None, description="cores, and threads of the step", gt=0)
