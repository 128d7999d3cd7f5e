"""What is done with a filled cube.

Filled series come in; events come out. Start with `mowing.py`.
"""

from cubefill.applications.mowing import Event as Event
from cubefill.applications.mowing import EventScore as EventScore
from cubefill.applications.mowing import detect as detect
from cubefill.applications.mowing import mowing_events as mowing_events
from cubefill.applications.mowing import mowing_probability as mowing_probability
from cubefill.applications.mowing import recall_by_month as recall_by_month
from cubefill.applications.mowing import score as score
from cubefill.applications.mowing import tolerance_curve as tolerance_curve
from cubefill.applications.mowing import vote as vote
