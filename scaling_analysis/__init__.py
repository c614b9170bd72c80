"""Scaling laws of loss and return against compute, and forecasts of the compute-optimal agent.

The public names, grouped by stage. They are resolved on first use (PEP 562), so that importing the
package costs little more than importing pandas.
"""

from importlib import import_module
from typing import Any

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
    "FrontierFit": "estimators.protocol",
    "natural_metric": "estimators.metrics",
    # several tasks
    "normalise_scores": "estimators.aggregate",
    "aggregate_scores": "estimators.aggregate",
    "probability_of_improvement": "estimators.aggregate",
    "ScoreAggregate": "estimators.aggregate",
    "fit_aggregate_law": "estimators.aggregate_law",
    "fit_pooled": "estimators.pooled",
    # bootstrap
    "bootstrap": "estimators.bootstrapping",
    "Bootstrap": "estimators.bootstrapping",
    "fit_from_dict": "estimators.bootstrapping",
    # forecast
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
    "plot_comparison": "report.figures",
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
