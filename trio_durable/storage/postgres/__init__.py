"""Storage in a PostgreSQL database. Needs psycopg: ``pip install 'trio-durable[postgres]'``."""

from ._job_queue import LEAD_MILLISECONDS, ClaimedJob, JobQueue, claimed_job
from ._jobs import MAX_ATTEMPTS, Jobs
from ._storage import PostgresStorage

__all__ = [
    "LEAD_MILLISECONDS",
    "MAX_ATTEMPTS",
    "ClaimedJob",
    "JobQueue",
    "Jobs",
    "PostgresStorage",
    "claimed_job",
]
