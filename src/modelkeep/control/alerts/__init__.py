"""Alerts: what somebody has to look at, from the moment at which it happens until it is resolved."""
