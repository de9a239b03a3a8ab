"""`embtables plan`: what a run on N ranks will hold, send and take, before anybody rents machines.

    log --reader, encoders--> sample --> statistics: keys per row, distinct keys of parts, growth, skew of owners
    machine --probes--> constants: dense net, work per key and row, calls and bytes of the wire, reading
    statistics, constants, ranks --> memory, bytes, seconds of a step --> what does not fit, what to change

- `keys`: statistics of one table's keys; how many rows it will have by the end of the log.
- `sample`: reads the log as training does, and times it.
- `load`: what one step asks of each table at N ranks: from a sample, or from stated figures.
- `cost`: bytes and seconds of a step, pure functions of loads, tables, constants and N. The exchange itself says how
  many bytes a lookup sends (`LookupBytes`). The model of a step:

      step = max(path, reading, (computing + reading) * busy threads / cores)
      path = batch + dense + asking + owning + wire       of the rank with the hottest owner
      wire = calls * latency(N) + bytes / bandwidth

  Every rank decodes the whole batch and converts its own part of it, so reading does not become less with N.
- `scenario`: a run at any number of ranks, its memory as the native core computes it, and what to change if it does
  not fit.
- `machine`, `probes`, `calibrate`: constants, measured on this machine in a few seconds by running the real code: the
  model without tables, tables in a world of mirrors (embtables' own exchange with nobody at the other end), and gloo
  between two processes. A file keeps them, so that a plan can be made elsewhere.
- `plan`, `terminal`: the request and the answer.

What is computed and not measured: everything beyond two ranks. A message to one more rank is taken to cost what one of
many small messages under way costs between two processes, an all_reduce to go round a ring, as gloo's does, and each
call to wait for the latest rank, ranks being late as normal, independent numbers are. `benchmarks.scale` computes the
curve to 1,024 ranks from the same functions.
"""
