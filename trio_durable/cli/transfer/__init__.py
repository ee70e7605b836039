"""Transfer of objects and alarms between storages, and to and from files."""
