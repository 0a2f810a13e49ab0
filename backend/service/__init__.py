"""The service that owns jobs: clients talk to it over ZeroMQ, worker processes do its jobs, SQLite remembers them."""
