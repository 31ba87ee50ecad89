"""HTTP platforms: a job becomes one POST, its answer the job's outcome.

`http_platform` is the base, `http_exchange` the POST and what is certain after it, `answers` what an answer proves,
`account_limits` the rate and backoff of an account. `cloud_codes` is the table of Meta's error codes, `callback_data` the name of
a claim that Meta repeats in each status. What an answer looks like is taken from published documents and clients, which are
named where it is read. A platform adds a class with two methods, `request` and `read`, and its definition in
`shardd.config.transports`.

Failures: before the connection is established a platform is unreachable; after that, only a clear verdict counts as sent or
not sent. Nothing is ever repeated here, and no redirect followed.
"""
