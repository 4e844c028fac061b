"""What every paid call obeys: keys, rates, quotas, prices, one event loop."""
