"""The scheduler whose alarms are jobs of Oban."""
