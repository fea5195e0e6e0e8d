"""A sweep's report: one page, its pictures, its tables, and the interactive plots."""
