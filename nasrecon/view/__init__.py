"""Results to look at: a live page (``live.py``), a report in one file (``report.py``), a picture (``sheet.py``)."""
