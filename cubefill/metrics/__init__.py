"""Metrics that add up over chunks, each with its convention.

Predicted and true values come in; scores come out. Start with `formulas.py`.
"""

from cubefill.metrics.formulas import ERGAS as ERGAS
from cubefill.metrics.formulas import MAE as MAE
from cubefill.metrics.formulas import NDVIMAE as NDVIMAE
from cubefill.metrics.formulas import PSNR as PSNR
from cubefill.metrics.formulas import R2 as R2
from cubefill.metrics.formulas import RMSE as RMSE
from cubefill.metrics.formulas import SAM as SAM
from cubefill.metrics.formulas import SSIM as SSIM
from cubefill.metrics.formulas import Bias as Bias
from cubefill.metrics.formulas import Coverage as Coverage
from cubefill.metrics.formulas import Metric as Metric
from cubefill.metrics.formulas import Terms as Terms
from cubefill.metrics.formulas import add as add
from cubefill.metrics.formulas import sees as sees
from cubefill.metrics.perceptual import GMSD as GMSD
from cubefill.metrics.perceptual import HighFrequency as HighFrequency
from cubefill.metrics.scoring import DEFAULT as DEFAULT
from cubefill.metrics.scoring import METRICS as METRICS
from cubefill.metrics.scoring import Score as Score
from cubefill.metrics.scoring import defaults as defaults
from cubefill.metrics.scoring import formula as formula
from cubefill.metrics.scoring import ndvi_mae as ndvi_mae
from cubefill.metrics.scoring import resolve as resolve
from cubefill.metrics.scoring import score as score
