"""Plans: a solver as a table of rows."""
