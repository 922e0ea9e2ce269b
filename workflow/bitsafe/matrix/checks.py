"""What can be wrong with a block of the matrix, told in one line before anything runs."""

from importlib import import_module
from typing import Any

from bitsafe.cells import Cell
from bitsafe.config import Block, Config
from bitsafe.errors import UserError
from bitsafe.matrix.tables import MethodRow, PatchRow, suggestion


def chosen_blocks(config: Config) -> list[tuple[int, Block]]:
    """The blocks of the parts that are asked for, with their places; all where none is."""
    named = {block.part for block in config.matrix if block.part}
    for part in config.parts or []:
        if part not in named:
            raise UserError(f"parts: no block of the matrix is of part {part!r}{suggestion(part, sorted(named))}")
    for number, block in enumerate(config.matrix):
        for model in block.models or []:
            if model not in config.models:
                hint = suggestion(model, config.models)
                raise UserError(f"matrix[{number}].models: {model!r} is no model of the run{hint}")
    return [(n, block) for n, block in enumerate(config.matrix) if not config.parts or block.part in config.parts]


def check_supported(where: str, method: str, what: str, value: Any, supported: Any) -> None:
    if value not in supported:
        known = ", ".join(map(str, supported))
        raise UserError(f"{where}: {method} does not do {what}; it does {known} (workflow/tables/methods.yaml)")


def check_settings(reader: str | None, params: dict[str, Any], cell: Cell) -> None:
    """Read the parameters of a patched cell as its job will, and forget them."""
    if reader is None:
        return
    module, _, name = reader.rpartition(".")
    try:
        getattr(import_module(module), name).read(params)
    except UserError as error:
        raise UserError(f"{cell}: {error}") from None


def check_patch(where: str, patch: str, patch_row: PatchRow, method: str, row: MethodRow) -> None:
    if patch_row.restores and (reason := row.unrestorable()):
        raise UserError(
            f"{where}: {patch} puts weights of full precision back, which {method} does not allow: {reason}"
        )
