"""What benchmarks share: measuring (measure.py), contenders that take turns (turns.py), CTR models (ctr.py)."""

from benchmarks._harness.measure import ROOT as ROOT
from benchmarks._harness.measure import Spread as Spread
from benchmarks._harness.measure import finish as finish
from benchmarks._harness.measure import interleave as interleave
from benchmarks._harness.measure import machine as machine
from benchmarks._harness.measure import parser as parser
from benchmarks._harness.measure import peak_memory_mib as peak_memory_mib
from benchmarks._harness.measure import table as table
from benchmarks._harness.measure import write_section as write_section
