"""Which device may send next, and which of its jobs; and which is visited next.

Promises: every device with work that may send is served, round robin, however many jobs the others have. Within a device the
highest priority goes first, campaigns share by weight, and the oldest job of a lane goes first. Gaps, limits, quiet hours and
caps hold across everything that a device sends. A device that has nothing to send is visited before `visit_every` has passed.

State: `Scheduler` keeps one `DeviceQueue` per device, with a lane for each campaign and class; `ReadyQueue` orders the devices
that may be claimed for. All of it is in memory only, and rebuilt from the database at each start.

How it fails: what the scheduler knows about work is a hint, from the work poller, a notification or a job that came back. A hint
too many costs an empty claim; one too few is made up for by the next scan. `DeviceSync`, `CampaignSync` and `GroupAssigner` read
the tables; while the database does not answer they retry, and what was read before stays in force.

Never: claims a job, lets a visit take what a send needs, or trusts a notification for anything but when to read a table.
"""
