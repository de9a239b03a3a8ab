"""Which version answers, where it comes from, and how it follows the trainer."""
