"""The report: one folder of static files that shows what models were asked, what they said, and how they score."""
