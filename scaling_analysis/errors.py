"""The exceptions, warnings and states that the stages share.

One exception class a stage, so that a caller can tell a bad file from an unusable fit. A message
names what is wrong, where (file, column, line, value), and what to do next.
"""

from enum import StrEnum


class ScalingError(Exception):
    """Base of every error that a user can mend; the command line prints it and exits 1."""


class RunLogError(ScalingError):
    """A run log, episode table or plan cannot be read or does not follow the schema."""


class FitError(ScalingError):
    """The runs do not determine the law: too few sizes, no interior minimum, a flat objective."""


class BootstrapError(ScalingError):
    """A resampling scheme does not apply, or too many replicates are no valid fit."""


class ForecastError(ScalingError):
    """A forecast, hindcast or inverse question cannot be answered from the fits given."""


class PlanError(ScalingError):
    """A plan cannot be made: a size that no model has, a budget below one optimiser step."""


class TrainError(ScalingError):
    """Training, recording or evaluation stopped for a reason that the user can mend."""


class VerifyError(ScalingError):
    """A log cannot judge a forecast: overlapping or changed rows, or runs older than it."""


class ReportError(ScalingError):
    """A report cannot be written."""


class ScalingWarning(UserWarning):
    """The result stands, but a reader must know something about it."""


class FitStatus(StrEnum):
    """State of a fit; the first line of every `summary()`."""

    OK = "ok"
    DOUBTFUL = "doubtful"
    """The numbers are returned, with a reason in `messages` not to trust them blindly."""
