"""What people look at: plots and tables of what was found."""

from undistill.report.forecast import duration, forecast_lines
from undistill.report.plots import check_trade_off, plot_spectra, plot_trade_off
from undistill.report.tables import audit_table, flag_lines, spectrum_table, threat_card_table
from undistill.report.utility import cost_line, utility_notes, utility_tables

__all__ = [
    "audit_table",
    "check_trade_off",
    "cost_line",
    "duration",
    "flag_lines",
    "forecast_lines",
    "plot_spectra",
    "plot_trade_off",
    "spectrum_table",
    "threat_card_table",
    "utility_notes",
    "utility_tables",
]
