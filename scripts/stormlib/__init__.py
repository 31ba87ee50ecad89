"""The storm: real nodes on a real PostgreSQL with a standby, programs that insert jobs, and faults by a seed.

Three records are compared at the end: what the producers asked for, what the database says, and what was delivered (the files of
the sandbox, the record of the test WhatsApp server). What a worker knew at each moment is in a fourth (`witness`), which no fault
can take away: only with it can be said whether a job is in doubt for a reason.

    plan         which fault when, by a seed
    faults, database_faults
                 how each is made and repaired
    in_hand      what workers have handed over without an answer, so that a kill leaves a doubt
    place        everything that runs: servers, links, nodes, devices
    producers    programs that act on the queue, and what they asked for
    records      what all of them wrote
    checks       what must hold between the records
    tables       faults and fail-over times, for people
    mutants      safeties that are removed, one for each run
"""
