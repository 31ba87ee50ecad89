"""The database side: jobs, devices, leases. All SQL stands in `sql/` and `migrations/`."""
