"""
Models that do not ship with the repository, and the embedded toy's training.

REQUIRED INPUTS:
    a row of workflow/tables/models.yaml; data_dir (or the variable DATA_DIR) where there is no network

OUTPUTS:
    <results>/models/<model>/source.json      what was fetched, from where, with hashes; the checkpoint beside it
    <results>/downloads/                      prompt sets (target `prefetch`: these and the models of the run)
    <results>/toy_train/organism<k>/          the toy, trained again (target `train_toy`; `python -m bitsafe
                                              promote_toy` puts it into data/toy)
"""


localrules:
    fetch_model,  # compute nodes may have no network


rule fetch_model:
    """Fetching a checkpoint by its pinned revision."""
    output:
        f"{RUN.config.results}/models/{{model}}/source.json",
    log:
        f"{OUT}/logs/fetch_model/{{model}}.log",
    benchmark:
        f"{OUT}/timings/fetch_model/{{model}}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "fetch_model"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "fetch_model"),
    shell:
        "python -m bitsafe fetch_model {params.run} {wildcards.model} 2>&1 | tee {log}"


rule prefetch:
    """Fetching everything that the run reads from the network, where there is one: models and prompt sets."""
    input:
        [path for model in RUN.config.models for path in hooks.checkpoint_inputs(RUN, model)],
        f"{OUT}/tables/near_duplicates.csv",


rule train_toy_organism:
    """Training one toy organism: tokenizer, pretraining, thin alignment, outliers."""
    output:
        f"{RUN.config.results}/toy_train/organism{{organism}}/model.safetensors",
    log:
        f"{RUN.config.results}/toy_train/organism{{organism}}.log",
    benchmark:
        f"{RUN.config.results}/toy_train/organism{{organism}}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "train_toy"),
    params:
        out=lambda wc: f"{RUN.config.results}/toy_train",
    shell:
        "python -m bitsafe train_toy {params.out} {wildcards.organism} 2>&1 | tee {log}"


rule train_toy:
    """Training the three organisms of the embedded toy."""
    input:
        [f"{RUN.config.results}/toy_train/organism{k}/model.safetensors" for k in range(3)],
