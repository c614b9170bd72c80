"""Scaling laws of loss and return against compute, and forecasts of the compute-optimal agent.

The public names, grouped by stage. They are resolved on first use (PEP 562), so that importing the
package costs little more than importing pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling_analysis.errors import BootstrapError as BootstrapError
    from scaling_analysis.errors import FitError as FitError
    from scaling_analysis.errors import FitStatus as FitStatus
    from scaling_analysis.errors import ForecastError as ForecastError
    from scaling_analysis.errors import PlanError as PlanError
    from scaling_analysis.errors import ReportError as ReportError
    from scaling_analysis.errors import RunLogError as RunLogError
    from scaling_analysis.errors import ScalingError as ScalingError
    from scaling_analysis.errors import ScalingWarning as ScalingWarning
    from scaling_analysis.errors import TrainError as TrainError
    from scaling_analysis.errors import VerifyError as VerifyError
    from scaling_analysis.estimators.aggregate import aggregate_scores as aggregate_scores
    from scaling_analysis.estimators.aggregate import (
        probability_of_improvement as probability_of_improvement,
    )
    from scaling_analysis.estimators.aggregate_law import fit_aggregate_law as fit_aggregate_law
    from scaling_analysis.estimators.bootstrapping import Bootstrap as Bootstrap
    from scaling_analysis.estimators.bootstrapping import bootstrap as bootstrap
    from scaling_analysis.estimators.bootstrapping import fit_from_dict as fit_from_dict
    from scaling_analysis.estimators.curve import fit_curve as fit_curve
    from scaling_analysis.estimators.data_surface import fit_data_surface as fit_data_surface
    from scaling_analysis.estimators.envelope import fit_envelope as fit_envelope
    from scaling_analysis.estimators.horizon import fit_horizon as fit_horizon
    from scaling_analysis.estimators.intrinsic import fit_intrinsic as fit_intrinsic
    from scaling_analysis.estimators.isoflop import fit_isoflop as fit_isoflop
    from scaling_analysis.estimators.metrics import natural_metric as natural_metric
    from scaling_analysis.estimators.parametric import fit_parametric as fit_parametric
    from scaling_analysis.estimators.pooled import fit_pooled as fit_pooled
    from scaling_analysis.estimators.protocol import FrontierFit as FrontierFit
    from scaling_analysis.estimators.return_law import fit_return_law as fit_return_law
    from scaling_analysis.estimators.return_link import fit_return_link as fit_return_link
    from scaling_analysis.estimators.saturating import fit_saturating as fit_saturating
    from scaling_analysis.estimators.score_aggregate import ScoreAggregate as ScoreAggregate
    from scaling_analysis.estimators.surface import fit_surface as fit_surface
    from scaling_analysis.estimators.task_scores import normalise_scores as normalise_scores
    from scaling_analysis.estimators.thresholds import data_to_threshold as data_to_threshold
    from scaling_analysis.forecasting.allocation import spending as spending
    from scaling_analysis.forecasting.choosing import next_runs as next_runs
    from scaling_analysis.forecasting.comparison import compare_recipes as compare_recipes
    from scaling_analysis.forecasting.forecasting import forecast as forecast
    from scaling_analysis.forecasting.hindcasting import hindcast as hindcast
    from scaling_analysis.forecasting.influence import influence as influence
    from scaling_analysis.forecasting.plan_files import read_plan as read_plan
    from scaling_analysis.forecasting.plan_files import split_budgets as split_budgets
    from scaling_analysis.forecasting.plan_files import write_plan as write_plan
    from scaling_analysis.forecasting.planning import plan_forecast as plan_forecast
    from scaling_analysis.forecasting.planning import plan_ladder as plan_ladder
    from scaling_analysis.forecasting.result import Forecast as Forecast
    from scaling_analysis.forecasting.scores import Hindcast as Hindcast
    from scaling_analysis.forecasting.simulation import AdditiveSurface as AdditiveSurface
    from scaling_analysis.forecasting.simulation import SymmetricSurface as SymmetricSurface
    from scaling_analysis.forecasting.simulation import simulate_runs as simulate_runs
    from scaling_analysis.forecasting.verification import Verification as Verification
    from scaling_analysis.forecasting.verification import verify as verify
    from scaling_analysis.processes import processes as processes
    from scaling_analysis.report.curves import plot_comparison as plot_comparison
    from scaling_analysis.report.curves import plot_curve as plot_curve
    from scaling_analysis.report.diagnostics import plot_methods as plot_methods
    from scaling_analysis.report.diagnostics import plot_misfit as plot_misfit
    from scaling_analysis.report.diagnostics import plot_residuals as plot_residuals
    from scaling_analysis.report.figures import plot_frontier as plot_frontier
    from scaling_analysis.report.figures import plot_law as plot_law
    from scaling_analysis.report.figures import plot_link as plot_link
    from scaling_analysis.report.figures import plot_profiles as plot_profiles
    from scaling_analysis.report.verdicts import plot_hindcast as plot_hindcast
    from scaling_analysis.report.verdicts import plot_verification as plot_verification
    from scaling_analysis.report.writing import write_report as write_report
    from scaling_analysis.runlog.audit import audit as audit
    from scaling_analysis.runlog.importing import import_csv as import_csv
    from scaling_analysis.runlog.importing import import_il_scaling as import_il_scaling
    from scaling_analysis.runlog.importing import import_jsonl as import_jsonl
    from scaling_analysis.runlog.importing import import_tensorboard as import_tensorboard
    from scaling_analysis.runlog.importing import import_wandb as import_wandb
    from scaling_analysis.runlog.reading import load_episodes as load_episodes
    from scaling_analysis.runlog.reading import load_runs as load_runs
    from scaling_analysis.runlog.writing import append_run as append_run
    from scaling_analysis.runlog.writing import write_runs as write_runs

__version__ = "0.1.0"

_MODULE_OF = {
    # load
    "load_runs": "runlog.reading",
    "load_episodes": "runlog.reading",
    "append_run": "runlog.writing",
    "write_runs": "runlog.writing",
    "audit": "runlog.audit",
    # import
    "import_csv": "runlog.importing",
    "import_jsonl": "runlog.importing",
    "import_wandb": "runlog.importing",
    "import_tensorboard": "runlog.importing",
    "import_il_scaling": "runlog.importing",
    # fit
    "fit_isoflop": "estimators.isoflop",
    "fit_envelope": "estimators.envelope",
    "fit_parametric": "estimators.parametric",
    "fit_curve": "estimators.curve",
    "fit_surface": "estimators.surface",
    "fit_return_link": "estimators.return_link",
    "fit_return_law": "estimators.return_law",
    "fit_intrinsic": "estimators.intrinsic",
    "fit_saturating": "estimators.saturating",
    "fit_horizon": "estimators.horizon",
    "fit_data_surface": "estimators.data_surface",
    "data_to_threshold": "estimators.thresholds",
    "FrontierFit": "estimators.protocol",
    "natural_metric": "estimators.metrics",
    # several tasks
    "normalise_scores": "estimators.task_scores",
    "aggregate_scores": "estimators.aggregate",
    "probability_of_improvement": "estimators.aggregate",
    "ScoreAggregate": "estimators.score_aggregate",
    "fit_aggregate_law": "estimators.aggregate_law",
    "fit_pooled": "estimators.pooled",
    # bootstrap
    "bootstrap": "estimators.bootstrapping",
    "Bootstrap": "estimators.bootstrapping",
    "fit_from_dict": "estimators.bootstrapping",
    # forecast
    "processes": "processes",
    "hindcast": "forecasting.hindcasting",
    "forecast": "forecasting.forecasting",
    "Forecast": "forecasting.result",
    "Hindcast": "forecasting.scores",
    "influence": "forecasting.influence",
    "compare_recipes": "forecasting.comparison",
    "spending": "forecasting.allocation",
    "simulate_runs": "forecasting.simulation",
    "AdditiveSurface": "forecasting.simulation",
    "SymmetricSurface": "forecasting.simulation",
    # plan
    "plan_ladder": "forecasting.planning",
    "plan_forecast": "forecasting.planning",
    "next_runs": "forecasting.choosing",
    "read_plan": "forecasting.plan_files",
    "write_plan": "forecasting.plan_files",
    "split_budgets": "forecasting.plan_files",
    # verify
    "verify": "forecasting.verification",
    "Verification": "forecasting.verification",
    # report
    "write_report": "report.writing",
    "plot_profiles": "report.figures",
    "plot_frontier": "report.figures",
    "plot_law": "report.figures",
    "plot_link": "report.figures",
    "plot_comparison": "report.curves",
    "plot_curve": "report.curves",
    "plot_hindcast": "report.verdicts",
    "plot_verification": "report.verdicts",
    "plot_residuals": "report.diagnostics",
    "plot_misfit": "report.diagnostics",
    "plot_methods": "report.diagnostics",
    # errors
    "ScalingError": "errors",
    "RunLogError": "errors",
    "FitError": "errors",
    "BootstrapError": "errors",
    "ForecastError": "errors",
    "PlanError": "errors",
    "TrainError": "errors",
    "VerifyError": "errors",
    "ReportError": "errors",
    "ScalingWarning": "errors",
    "FitStatus": "errors",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
