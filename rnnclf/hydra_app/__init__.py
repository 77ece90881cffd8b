"""Everything that touches Hydra. docs/decisions/0001-hydra.md explains how it is used, and why."""

from rnnclf.hydra_app.bridge import Job, run_hydra
from rnnclf.hydra_app.compose import load_config, overridden

__all__ = ["Job", "load_config", "overridden", "run_hydra"]
