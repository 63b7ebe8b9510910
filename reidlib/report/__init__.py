"""Run records -> tables, statements and pages; runs the notebooks."""
