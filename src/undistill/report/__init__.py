"""What people look at: plots and tables of what was found."""

from undistill.report.figures import write_figures
from undistill.report.files import AuditFiles, read_audits
from undistill.report.forecast import duration, forecast_lines
from undistill.report.page import REPORT, check_page, write_measurements, write_report
from undistill.report.plots import check_plot, check_trade_off, plot_spectra, plot_trade_off
from undistill.report.tables import audit_tables, flag_lines, spectrum_table, threat_card_table
from undistill.report.utility import cost_line, utility_notes, utility_tables

__all__ = [
    "REPORT",
    "AuditFiles",
    "audit_tables",
    "check_page",
    "check_plot",
    "check_trade_off",
    "cost_line",
    "duration",
    "flag_lines",
    "forecast_lines",
    "plot_spectra",
    "plot_trade_off",
    "read_audits",
    "spectrum_table",
    "threat_card_table",
    "utility_notes",
    "utility_tables",
    "write_figures",
    "write_measurements",
    "write_report",
]
