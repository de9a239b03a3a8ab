"""The online loop: late clicks, admission and expiry, speed, and the time until a click is seen in answers."""
