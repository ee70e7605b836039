"""The commands that look into a storage, and change what is in it.

They go through the contract of storages alone, so they work on all of them (but for `migrate
--down`, which only PostgreSQL has). What reads works beside
a running runtime. What writes takes the writing side, so that it and a runtime keep each other out;
before that, it looks whether there is anything to be done, for taking the writing side makes what
isn't there.
"""
