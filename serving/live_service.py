"""`LiveService`: answers of the version that is live: its scores, its rows, what is known of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.batches import Batches
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.service import Embedded, Scored
