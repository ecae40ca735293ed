"""The laboratory: recorded runs, searches, sweeps and campaigns, above the core."""
