"""Protocol, plan, execution, store and judgement: from a teacher to a verdict."""

from undistill.audit.beforehand import check_split
from undistill.audit.execution import count_workers
from undistill.audit.judgement import Accuracies, Cell, Leak, Measured, Outcome, Verdict, judge, verdict_of
from undistill.audit.knockoff import train_knockoff
from undistill.audit.packing import pack
from undistill.audit.protocol import Protocol, battery
from undistill.audit.result import SCHEMA, Audit, Undefended
from undistill.audit.run import PROBE_IMAGES, SilentWatcher, Watcher, audit, audit_all, audit_path
from undistill.audit.store import Store
from undistill.audit.trial import Trial, run_pack, run_trial

__all__ = [
    "PROBE_IMAGES",
    "SCHEMA",
    "Accuracies",
    "Audit",
    "Cell",
    "Leak",
    "Measured",
    "Outcome",
    "Protocol",
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
    "judge",
    "pack",
    "run_pack",
    "run_trial",
    "train_knockoff",
    "verdict_of",
]
