"""From columns to ids and numbers: the features stage of requests, and what of it is made beforehand."""
