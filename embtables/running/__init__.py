"""Running features: columns of what happened before an event, folded from events in their time."""
