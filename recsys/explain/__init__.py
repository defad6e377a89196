"""Why an item is recommended, how true the reasons are, and which interactions look implausible."""
