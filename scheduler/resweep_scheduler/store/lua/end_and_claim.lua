-- What stands between two runs of an agent: the report of the one, then the claim of the next, in one flight. Each is
-- what it is alone, and repeated like it.
-- KEYS[1] sweep hash · args: report (as of end_attempt), ask (as of claim)
-- returns {report, answer}: see shared/ending.lua and shared/claiming.lua
-- from → to: those of end_attempt, then those of claim
-- include: base, clock, sweeps, runs, stopping, ending, adding, claiming
local reported = report_end(args.report)
return reply({ report = reported, answer = claim_run(args.ask) })
