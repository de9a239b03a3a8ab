"""The tables of one model: what reads them, their step, clock, figures, and who follows their changes."""
