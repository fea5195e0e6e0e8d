"""What comes out of a sweep: adapters exported, checked, described, and put to work."""

from lorasweep.tuning.adapters.export.formats import ExportFormat as ExportFormat
