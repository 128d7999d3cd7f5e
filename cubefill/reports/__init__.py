"""The report of a cube: one HTML page.

A cube and its filled form come in; a page with pictures, numbers and warnings comes out. Start
with `report_page.py`.
"""

from cubefill.reports.report_page import Report as Report
from cubefill.reports.report_page import report as report
from cubefill.reports.report_page import summary_html as summary_html
