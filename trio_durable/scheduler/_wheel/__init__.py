"""The default scheduler: a timing wheel over the table of alarms."""
