"""Programs that speak over their standard streams: started, supervised and ended."""
