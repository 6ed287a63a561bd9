"""Analysis: metrics, reports and plots. It reads results and changes nothing."""
