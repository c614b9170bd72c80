"""`scaling-train`: record demonstrations, run a plan, evaluate and watch agents.

Each command is a few lines around public functions; what they need (torch, NLE) is imported when a
command runs, so that a missing package is named, with what to install.
"""

from training_backend.cli import agents, demonstrations, plans, studies
from training_backend.cli.application import app, main

__all__ = ["agents", "app", "demonstrations", "main", "plans", "studies"]
