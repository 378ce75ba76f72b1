"""The bundled sample: 300 real calls as OpenPipe would log them; ORIGIN.md says where from."""

import importlib.resources
from pathlib import Path

from pipelines.config import ExportConfig, parse_config
from pipelines.errors import ConfigError
from pipelines.layout import OWNER_PATH


def sample_config(destination: str) -> ExportConfig:
    """Return what `configs/demo.yaml` says, with the bundled batches as source."""
    folder = importlib.resources.files("pipelines.sample").joinpath("openpipe")
    document = {
        "name": "demo",
        "source": {"url": str(folder), "preset": "openpipe", "date_path": "year=%Y"},
        "destination": {"url": destination},
        "window": {"every": "30d", "start": "2024-01-12", "lag": "1h"},
        "partition_by": ["date", "model"],
        "max_reject_ratio": 0.1,
    }
    return parse_config(document, origin="the bundled demo", base=Path.cwd())


def check_demo_folder(folder: Path) -> None:
    """Make sure that a folder is absent, empty or an export's; the export tells whose it is.

    Raises:
        ConfigError: it holds something else, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--to: {folder} is a file; name a new or empty folder")
    if not folder.is_dir() or (folder / OWNER_PATH).exists():
        return
    if held := min((path.name for path in folder.iterdir()), default=""):
        raise ConfigError(
            f"--to: {folder} holds {held} and is no earlier demo; name a new or empty folder"
        )
