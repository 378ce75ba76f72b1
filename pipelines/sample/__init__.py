"""The bundled sample: 300 real calls as OpenPipe would log them; ORIGIN.md says where from."""

import importlib.resources
from pathlib import Path

from pipelines.config import ExportConfig, parse_config


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
