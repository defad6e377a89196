"""What people look at: plotting (matplotlib), svg (charts for pages), report (one-file HTML)."""
