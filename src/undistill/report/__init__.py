"""What people look at: plots and tables of what was found."""

from undistill.report.plots import plot_spectra
from undistill.report.tables import audit_table, flag_lines, spectrum_table

__all__ = ["audit_table", "flag_lines", "plot_spectra", "spectrum_table"]
