"""The plots of a report. To add one, add it to `PLOTS` in `lorasweep.tuning.report.plots.table`."""
