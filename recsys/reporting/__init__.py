"""What people look at: plotting (figures by matplotlib), svg (charts for pages), report and texts (one HTML file)."""
