"""What `import deep_piano` offers; read at run time, too, by lazy_loader."""

from .api.doctor import Check
from .api.jobs import (
    continue_folder,
    prepare_dataset,
    preview_dataset,
    run_pipeline,
    submit_job,
    train_checkpoint,
)
from .api.music import continue_piece, continue_pieces, load_checkpoint, render, transcribe
from .api.piece import Piece
from .api.tools import (
    check_machine,
    compare_runs,
    count_votes,
    evaluate,
    fetch_asset,
    index_dataset,
    inspect,
    list_assets,
    train_judge,
    write_page,
)
from .dataset.reader import Dataset
from .errors import DeepPianoError, InputError
from .infra.progress import Progress
from .models.checkpoint import Checkpoint
from .music.notes import NOTE, make_notes

__version__: str

__all__ = [
    "NOTE",
    "Check",
    "Checkpoint",
    "Dataset",
    "DeepPianoError",
    "InputError",
    "Piece",
    "Progress",
    "check_machine",
    "compare_runs",
    "continue_folder",
    "continue_piece",
    "continue_pieces",
    "count_votes",
    "evaluate",
    "fetch_asset",
    "index_dataset",
    "inspect",
    "list_assets",
    "load_checkpoint",
    "make_notes",
    "prepare_dataset",
    "preview_dataset",
    "render",
    "run_pipeline",
    "submit_job",
    "train_checkpoint",
    "train_judge",
    "transcribe",
    "write_page",
]
