"""Protocol, plan, execution, store and judgement: from a teacher to a verdict."""

from undistill.audit.beforehand import check_split
from undistill.audit.cluster import RayCluster, RayExecutor
from undistill.audit.execution import Executor, Pool, count_workers
from undistill.audit.flags import FLAGS, Findings, Flag, FlagKind, Raised, Severity, find_flags
from undistill.audit.forecast import Forecast, Range, forecast_audit
from undistill.audit.judgement import Accuracies, Cell, Leak, Measured, Outcome, Verdict, judge, verdict_of
from undistill.audit.knockoff import train_knockoff
from undistill.audit.packing import pack
from undistill.audit.protocol import Origin, Protocol, battery, usable
from undistill.audit.result import SCHEMA, Audit, Undefended
from undistill.audit.run import MARK, audit, audit_all, audit_path, open_executor, used_trials
from undistill.audit.store import Entry, Store
from undistill.audit.trial import Trial, run_pack, run_trial
from undistill.audit.versions import VERSIONS, customised, plus, quick, standard
from undistill.audit.watching import SilentWatcher, Stage, Watcher, decided

__all__ = [
    "FLAGS",
    "MARK",
    "SCHEMA",
    "VERSIONS",
    "Accuracies",
    "Audit",
    "Cell",
    "Entry",
    "Executor",
    "Findings",
    "Flag",
    "FlagKind",
    "Forecast",
    "Leak",
    "Measured",
    "Origin",
    "Outcome",
    "Pool",
    "Protocol",
    "Raised",
    "Range",
    "RayCluster",
    "RayExecutor",
    "Severity",
    "SilentWatcher",
    "Stage",
    "Store",
    "Trial",
    "Undefended",
    "Verdict",
    "Watcher",
    "audit",
    "audit_all",
    "audit_path",
    "battery",
    "check_split",
    "count_workers",
    "customised",
    "decided",
    "find_flags",
    "forecast_audit",
    "judge",
    "open_executor",
    "pack",
    "plus",
    "quick",
    "run_pack",
    "run_trial",
    "standard",
    "train_knockoff",
    "usable",
    "used_trials",
    "verdict_of",
]
