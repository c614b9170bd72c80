"""`scaling`: a run log in, a forecast and a report out. Each command is around one public function.

What a command needs is imported when it runs, so that help and completion answer at once.
"""

from scaling_analysis.cli import fits, forecasts, logs, plans, reports
from scaling_analysis.cli.application import app, main

__all__ = ["app", "fits", "forecasts", "logs", "main", "plans", "reports"]
