"""A request as it comes and an answer as it goes: heads, bodies, their forms and limits."""
