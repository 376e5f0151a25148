"""Protocol, plan, execution, store and judgement: from a teacher to a verdict."""

from undistill.audit.beforehand import check_split
from undistill.audit.execution import count_workers
from undistill.audit.flags import FLAGS, Findings, Flag, FlagKind, Raised, Severity, find_flags
from undistill.audit.judgement import Accuracies, Cell, Leak, Measured, Outcome, Verdict, judge, verdict_of
from undistill.audit.knockoff import train_knockoff
from undistill.audit.protocol import Origin, Protocol, battery, usable
from undistill.audit.result import SCHEMA, Audit, Undefended
from undistill.audit.run import PROBE_IMAGES, SilentWatcher, Watcher, audit, audit_all, audit_path
from undistill.audit.store import Store
from undistill.audit.trial import Trial, run_trial
from undistill.audit.versions import VERSIONS, customised, plus, quick, standard

__all__ = [
    "FLAGS",
    "PROBE_IMAGES",
    "SCHEMA",
    "VERSIONS",
    "Accuracies",
    "Audit",
    "Cell",
    "Findings",
    "Flag",
    "FlagKind",
    "Leak",
    "Measured",
    "Origin",
    "Outcome",
    "Protocol",
    "Raised",
    "Severity",
    "SilentWatcher",
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
    "find_flags",
    "judge",
    "plus",
    "quick",
    "run_trial",
    "standard",
    "train_knockoff",
    "usable",
    "verdict_of",
]
